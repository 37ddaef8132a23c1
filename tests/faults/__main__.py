"""Injures the program at random until the time is up; the last line is one line of JSON.

    python -m tests.faults --minutes 10
    python -m tests.faults --seed 7 --kinds driver --episode 12     # repeats one

An episode runs the drawn pipeline (or a tool, or a tiny training), injures it at a moment that seed and
number decide as a share of an undisturbed run, does what the documentation tells a user to do then, and
compares. `kills` are the injuries of any kind that found it at work, `identical` those after which the
result was the undisturbed one, `missed` those that came after its end. A repetition strikes at the same
share, which is near the same place.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.session import Tally, episodes, kind_names, kind_of


def main() -> int:
    """Returns 0, 1 (something was not as undisturbed) or 2 (bad usage)."""
    known = kind_names()
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="default %(default)s")
    parser.add_argument("--kills", type=int, help="stop after so many, if the minutes are not up before")
    parser.add_argument("--each", type=int, metavar="N", help="stop after N kills of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episode", type=int, help="this one alone")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=f"of: {', '.join(known)}")
    parser.add_argument("--slow", action="store_true", help="the slow kinds too")
    parser.add_argument("--folder", type=Path, help="for what the episodes write; default /dev/shm or TMPDIR")
    options = parser.parse_args()
    chosen = options.kinds or known
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"--kinds: {unknown[0]} is none of {', '.join(known)}")
    if not options.kinds and not options.slow:
        chosen = [name for name in known if not getattr(kind_of(name), "SLOW", False)]

    # SIGKILL loses nothing that was written, so memory serves as a disk and is not worn.
    parent = options.folder or (Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix="persona-faults-", dir=parent))
    numbers = itertools.count() if options.episode is None else iter([options.episode])
    began = time.monotonic()
    tally = Tally()
    for episode in episodes(folder, options.seed, chosen, numbers, options.each):
        tally.add(episode)
        minutes = (time.monotonic() - began) / 60
        print(
            f"{episode.number:5d}  {episode.kind:<16} {episode.outcome:<9} {episode.seconds:5.1f} s  "
            f"{episode.what}  [{tally.identical}/{tally.kills}, {tally.kills / minutes:.1f} a minute]",
            flush=True,
        )
        if episode.outcome == "differs":
            words = f"--seed {options.seed} --kinds {episode.kind} --episode {episode.number}"
            print(f"       again: python -m tests.faults {words}; left in {folder}", flush=True)
        if minutes >= options.minutes or tally.kills == options.kills:
            break
    result = {**tally.to_json(), "seed": options.seed, "minutes": round((time.monotonic() - began) / 60, 2)}
    if not tally.differing:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return 1 if tally.differing or not tally.kills else 0


if __name__ == "__main__":
    sys.exit(main())
