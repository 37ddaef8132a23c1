"""How fast datasets are written, beside webdataset's ShardWriter: python benchmarks/writing.py

The same samples (reading_samples.py), which lie in memory, on two cores: tars, checksums of members and
shards, the index and the card, synced to the disk before they are seen, as DatasetWriter does; and tars
alone, as webdataset's ShardWriter does, which leaves syncing to the system. Each in a process of its own,
rounds one after the other, medians. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.reading_samples import samples  # noqa: E402
from shards.format.dataset_writer import DatasetWriter  # noqa: E402

CORES = 2
PER_SHARD = 1000
WARM = 100  # samples that are written before the clock starts

Samples = list[tuple[str, dict[str, bytes]]]


def ours(folder: Path, given: Samples) -> None:
    """A whole dataset."""
    with DatasetWriter(str(folder), max_samples=PER_SHARD) as writer:
        for key, members in given:
            writer.add(key, members)
        writer.close("benchmark", {})


def webdataset(folder: Path, given: Samples) -> None:
    """Tars."""
    from webdataset import ShardWriter

    with ShardWriter(f"{folder}/%06d.tar", maxcount=PER_SHARD, verbose=0) as writer:
        for key, members in given:
            writer.write({"__key__": key, **members})


WRITERS: dict[str, Callable[[Path, Samples], None]] = {"ours": ours, "webdataset": webdataset}


def main() -> int:
    """Rounds of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=None, help="a folder on the disk that counts; else a temporary one")
    parser.add_argument("--one", choices=WRITERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if given.one:
        print(rate_of(WRITERS[given.one], given.samples, given.out))
        return 0
    rates: dict[str, list[float]] = {name: [] for name in WRITERS}
    for _ in range(given.rounds):
        for name, found in rates.items():
            command = [sys.executable, __file__, "--one", name, "--samples", str(given.samples)]
            command += ["--out", given.out] if given.out else []
            found.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"{given.samples} samples, {CORES} cores, median of {given.rounds} rounds")
    for name, found in rates.items():
        print(f"  {name:<12}{medians[name]:8.0f}/s   {' '.join(f'{rate:.0f}' for rate in found)}")
    print(json.dumps({"vs_webdataset": round(medians["ours"] / medians["webdataset"], 3), "rates": medians}))
    return 0


def rate_of(write: Callable[[Path, Samples], None], count: int, out: str | None) -> float:
    """Samples/s from the first sample to a closed writer; libraries are imported before."""
    given = list(samples(count))
    folder = Path(tempfile.mkdtemp(prefix="persona-writing-", dir=out))
    try:
        (folder / "warm").mkdir()
        write(folder / "warm", given[:WARM])
        os.sync()  # what was written before is no part of it
        (folder / "timed").mkdir()
        began = time.perf_counter()
        write(folder / "timed", given)
        return count / (time.perf_counter() - began)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
