"""A decoder with faults: photos that end in a word crash it, hang it, swell it, or kill it once."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from curation.photos import decode_worker
from curation.photos.decode import Opened, RightsWanted, open_photo

CRASH, SPIN, SWELL, KILL_ONCE = b"it crashes", b"it hangs", b"it swells", b"killed once "


def open_or_fail(
    data: bytes,
    about_px: int | None = None,
    max_pixels: int | None = None,
    told: int = 1,
    rights: RightsWanted = "none",
) -> Opened:
    """`open_photo`, but for these words. Behind KILL_ONCE stands a file that says that it was done."""
    if data.endswith(CRASH):
        ctypes.string_at(0)
    while data.endswith(SPIN):
        pass
    if data.endswith(SWELL):
        data += bytes(2**40)
    before, found, mark = data.partition(KILL_ONCE)
    if found and not Path(os.fsdecode(mark)).exists():
        Path(os.fsdecode(mark)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return open_photo(before if found else data, about_px, max_pixels, told, rights)


if __name__ == "__main__":
    sys.exit(decode_worker.main(open_or_fail))
