"""Runs the demo's models over one drawn collection as several processors would; the last line is JSON.

    python -m tests.processors --photos 80
    python -m tests.processors --only "2 threads" avx2 sse

The collection is drawn once. The pipeline is `demo`, with the judge `appearance` and plain captions in the
place of the vision-language model, one process and one thread. Every other setting is compared with
it column by column; the first of them is the same again, and must be equal.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo.world.collection import write_collection
from demo.world.plan import make_world
from tests.drawn_pipeline import ROOT, command, environment
from tests.processors.instruction_sets import SETS
from tests.processors.leaves import difference, leaves_of

_PHASES = ("photos", "people", "identities", "outfits", "captions", "shards")


@dataclass(frozen=True)
class Setting:
    """A processor to pretend: variables of the environment, and threads of a worker."""

    variables: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


SETTINGS = {
    "again": Setting(),
    "2 threads": Setting(threads=2),
    "4 threads": Setting(threads=4),
    **{name: Setting(variables) for name, variables in SETS.items()},
}


def curate(collection: Path, run: Path, setting: Setting) -> float:
    """Runs the pipeline in a process of its own. Returns its seconds."""
    changes = [
        f"source.path={collection}",
        "outfits.judge={backend: appearance, cut: 0.8}",
        "captions.by={backend: plain}",
        *(f"{phase}.resources={{workers: 1, threads: {setting.threads}}}" for phase in _PHASES),
    ]
    words = [word for change in changes for word in ("--set", change)]
    began = time.monotonic()
    done = subprocess.run(
        command("curate", "demo", "--engine", "inline", "--quiet", "--out", run, *words),
        cwd=ROOT,
        env={**environment(), **setting.variables},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"the run failed: {done.stderr.strip()}")
    return time.monotonic() - began


def differences(collection: Path, folder: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """{setting: {column: how it differs from the run as the machine is}}; says a line of each."""
    seconds = curate(collection, folder / "as-it-is", Setting())
    print(f"as it is: {seconds:.0f} s", flush=True)
    whole = leaves_of(folder / "as-it-is")
    found = {}
    for name in names:
        run = folder / name.replace(" ", "-")
        seconds = curate(collection, run, SETTINGS[name])
        other = leaves_of(run)
        gone = dict.fromkeys(whole.keys() ^ other.keys(), "not there")
        changed = {column: difference(whole[column], other[column]) for column in whole.keys() & other.keys()}
        found[name] = gone | {column: how for column, how in changed.items() if how is not None}
        print(f"{name}: {len(found[name])} of {len(whole)} columns differ, {seconds:.0f} s", flush=True)
    return found


def main() -> int:
    """Returns 0, or 1 where the same setting gave other bytes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.processors",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--photos", type=int, default=80, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=515151, help="of the world (default %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="SETTING"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave collection and runs here")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="persona-processors-"))
    write_collection(make_world(options.seed, options.photos), folder / "world", ["tars"], 2)
    found = differences(folder / "world" / "collection" / "tars", folder, options.only)
    for column in sorted({column for columns in found.values() for column in columns}):
        print(column)
        for name, columns in found.items():
            print(f"    {name:<10} {columns.get(column, 'equal')}")
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"seed": options.seed, "photos": options.photos, "differences": found}))
    return 1 if found.get("again") else 0


if __name__ == "__main__":
    sys.exit(main())
