"""A disk that is too small for the run: one clear line, and the run goes on when there is room."""

import subprocess
from random import Random

from tests.faults.small_run import local_run, require_one_line
from tests.faults.workplace import Injury, Unavailable, Workplace

SHARE = 4


def injure(place: Workplace, random: Random) -> Injury:
    """A tmpfs of a part of what the run needs, made larger afterwards."""
    undisturbed = local_run(place, place.fresh()).undisturbed(place, "local")
    kib = 4 * int(random.uniform(0.05, 1.2) * undisturbed.n_bytes / 4096 + 1)
    run = local_run(place, place.fresh())
    disk = run.where.path
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk))
    try:
        command = run.start()
        code = command.exit_code()
        if code:
            require_one_line(command)
        run.check_visible()
        _mount("-o", "remount,size=256m", str(disk))
        run.finish(undisturbed)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
    return Injury(code != 0, f"{kib} KiB of room, exit code {code}")


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"mount: {done.stderr.strip()}")
