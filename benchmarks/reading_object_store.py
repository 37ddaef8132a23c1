"""Reading from an object store beside reading from disk: python benchmarks/reading_object_store.py

The same epoch, decoded by the same threads: from a local folder (page cache warm), and from a loopback
server that answers like S3 with 20 ms of latency; on a bad day 2 % of its requests fail (500, 503, resets,
cut bodies) and 5 % take half a second longer. The cache on disk is empty at first, so that all bytes cross
the server once. The window of the shuffle holds 16,384 samples, so most of the dataset is fetched while
the first of them are read: rates are given for the whole epoch, opening included, and for what follows its
first tenth ("after warm-up"). The second epoch finds all in the cache. Without a disk there is only the
read-ahead in memory, and bytes keep coming until the end of every epoch.

The server takes its processor time from the same cores. Local and remote passes alternate, and each
rate is the best of its passes. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.object_store_server import Faults, environment_set, object_store  # noqa: E402
from benchmarks.reading_samples import dataset  # noqa: E402
from shards.reading.folder import DatasetFolder  # noqa: E402
from shards.reading.loader import Loader  # noqa: E402
from shards.reading.photo_batches import PhotoBatches  # noqa: E402
from shards.reading.steps import Position  # noqa: E402
from shards.remote.disk_cache import DiskCache  # noqa: E402

GOOD_DAY = Faults(latency_s=0.02)
BAD_DAY = Faults(latency_s=0.02, failing=0.02, slow=0.05, slow_s=0.5, seed=1)
WARM_UP = 0.1  # of an epoch
BATCH = 64


@dataclass(frozen=True)
class Pass:
    """One epoch. Rates in samples/s; `read` is a hash of the keys in their order."""

    whole: float
    warm: float
    first_batch_s: float
    read: str


def epoch(open_source: Callable[[], DatasetFolder], threads: int, number: int = 0) -> Pass:
    """Opens a dataset and decodes an epoch of it to batches of 512 px. Raises where a sample is broken."""
    begun = time.perf_counter()
    source = open_source()
    loader = Loader(
        source,
        PhotoBatches(512, 512),
        BATCH,
        position=Position(seed=0, epoch=number),
        threads=threads,
        max_broken=0,
    )
    keys, moments = xxhash.xxh3_64(), []
    for batch in loader:
        keys.update(" ".join(batch.arrays["keys"]).encode())
        moments.append(time.perf_counter())
    source.close()
    skipped = max(int(len(moments) * WARM_UP), 1)
    return Pass(
        whole=len(moments) * BATCH / (moments[-1] - begun),
        warm=(len(moments) - skipped) * BATCH / (moments[-1] - moments[skipped - 1]),
        first_batch_s=moments[0] - begun,
        read=keys.hexdigest(),
    )


def remote_epochs(
    folder: Path, faults: Faults, threads: int, *, disk: bool = True, epochs: int = 1
) -> list[Pass]:
    """Epochs of a local dataset through a server of its own, with a cache that is empty at first."""
    with ExitStack() as stack:
        environment = stack.enter_context(object_store(folder.parent, faults))
        stack.enter_context(environment_set(environment))
        cache = None
        if disk:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="persona-cache-"))
            cache = DiskCache(scratch, max_bytes=64 * 2**30)
            stack.callback(cache.close)
        url = f"s3://{folder.name}"
        return [epoch(lambda: DatasetFolder(url, cache=cache), threads, number) for number in range(epochs)]


def s3_vs_local(folder: Path, *, threads: int = 2, passes: int = 2) -> dict[str, Any]:
    """Rates of each way, and their ratios to the local rate. Raises RuntimeError where samples differ.

    s3_vs_local, s3_vs_local_bad_day   after warm-up, through a cache on disk that was empty
    """
    found: defaultdict[str, list[Pass]] = defaultdict(list)
    for _ in range(passes):
        found["local"].append(epoch(lambda: DatasetFolder(str(folder)), threads))
        first, second = remote_epochs(folder, GOOD_DAY, threads, epochs=2)
        found["s3"].append(first)
        found["s3_second_epoch"].append(second)
        found["s3_bad_day"] += remote_epochs(folder, BAD_DAY, threads)
        found["s3_without_disk"] += remote_epochs(folder, GOOD_DAY, threads, disk=False)
    if len({one.read for name, passed in found.items() if "second" not in name for one in passed}) != 1:
        raise RuntimeError("the object store gave other samples than the disk")
    best = {
        name: Pass(
            max(one.whole for one in passed),
            max(one.warm for one in passed),
            min(one.first_batch_s for one in passed),
            passed[0].read,
        )
        for name, passed in found.items()
    }
    local = best["local"]
    return {
        "rates": {name: asdict(one) for name, one in best.items()},
        "s3_vs_local": best["s3"].warm / local.warm,
        "s3_vs_local_bad_day": best["s3_bad_day"].warm / local.warm,
        "s3_vs_local_whole_epoch": best["s3"].whole / local.whole,
        "s3_vs_local_second_epoch": best["s3_second_epoch"].warm / local.warm,
        "s3_vs_local_without_disk": best["s3_without_disk"].warm / local.warm,
    }


def main() -> None:
    """Measures, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "persona-reading")
    options = parser.parse_args()
    found = s3_vs_local(
        dataset(options.data, options.samples), threads=options.threads, passes=options.passes
    )
    print(f"{'':18} whole epoch   after warm-up   first batch")
    for name, rate in found["rates"].items():
        print(f"{name:18} {rate['whole']:8.0f}/s {rate['warm']:13.0f}/s {rate['first_batch_s']:11.2f} s")
    print(json.dumps({name: round(value, 3) for name, value in found.items() if name != "rates"}))


if __name__ == "__main__":
    main()
