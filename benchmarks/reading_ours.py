"""Our own reader and its decode kernel, each in a process of its own; started by benchmarks/reading.py.

    python -m benchmarks.reading_ours batches DATASET --seconds 6     samples/s of decoded batches
    python -m benchmarks.reading_ours kernel DATASET --seconds 6      samples/s of decoding alone
    python -m benchmarks.reading_ours raw DATASET                     samples/s of encoded members
    python -m benchmarks.reading_ours opening DATASET                 s to the first batch, s to resume
    python -m benchmarks.reading_ours memory DATASET                  MB over a whole epoch

Each prints one line of JSON.
"""

import argparse
import itertools
import json
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from shards.reading.folder import DatasetFolder, Sample
from shards.reading.loader import LoadedBatch, Loader
from shards.reading.order import EpochOrder
from shards.reading.photo_batches import PhotoBatches
from shards.reading.steps import Position

BATCH = 64
PHOTO_PX = 512
WARM_BATCHES = 8
KERNEL_SAMPLES = 2048
MEMORY_BATCH = 16
DECODED = 50  # of so many samples one is decoded where only memory counts


def decoder() -> PhotoBatches:
    """512 px images, masks and records."""
    return PhotoBatches(PHOTO_PX, PHOTO_PX)


def batches(folder: str, threads: int, seconds: float) -> dict[str, float]:
    """As peers are measured: from the moment that the pipeline is full."""

    def for_ever() -> Iterator[LoadedBatch]:
        loader = Loader(DatasetFolder(folder), decoder(), BATCH, threads=threads)
        while True:
            yield from loader

    coming = for_ever()
    for batch in itertools.islice(coming, WARM_BATCHES):
        assert batch.arrays["images"].shape == (BATCH, PHOTO_PX, PHOTO_PX, 3)
        assert batch.arrays["masks"].max() == 17
        assert batch.arrays["records"][0]["width"] == PHOTO_PX
        assert batch.weight.all()
    began, used = time.perf_counter(), time.process_time()
    count = 0
    for batch in coming:
        count += len(batch.samples)
        if time.perf_counter() - began > seconds:
            break
    return {
        "rate": count / (time.perf_counter() - began),
        "per_cpu_s": count / (time.process_time() - used),
    }


def kernel(folder: str, threads: int, seconds: float) -> dict[str, float]:
    """Decoding alone: members lie in memory, arrays are there, threads share nothing."""
    data = DatasetFolder(folder)
    order = EpochOrder(len(data), 0, 0)(np.arange(min(len(data), KERNEL_SAMPLES)))
    samples = [data.read(number) for number in order.tolist()]
    decode = decoder().decode
    done = [0] * threads
    began, used = time.perf_counter(), time.process_time()

    def work(thread: int) -> None:
        arrays = decoder().allocate(BATCH)
        for sample, slot in zip(
            itertools.cycle(samples[thread::threads]), itertools.cycle(range(BATCH)), strict=False
        ):
            decode(sample, arrays, slot)
            done[thread] += 1
            if time.perf_counter() - began > seconds:
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "rate": sum(done) / (time.perf_counter() - began),
        "per_cpu_s": sum(done) / (time.process_time() - used),
    }


def raw(folder: str) -> dict[str, float]:
    """All samples: as they lie in the tars, with checksums and without, shuffled, and in two threads."""
    found = {}
    for name, verify, shuffled in (
        ("rate", True, False),
        ("rate_unchecked", False, False),
        ("rate_shuffled", True, True),
    ):
        data = DatasetFolder(folder, verify=verify)
        numbers = np.arange(len(data))
        order = (EpochOrder(len(data), 0, 0)(numbers) if shuffled else numbers).tolist()
        began = time.perf_counter()
        for number in order:
            data.read(number)
        found[name] = len(order) / (time.perf_counter() - began)
    data = DatasetFolder(folder)

    def read(half: range) -> None:
        for number in half:
            data.read(number)

    halves = [range(len(data) // 2), range(len(data) // 2, len(data))]
    threads = [threading.Thread(target=read, args=(half,)) for half in halves]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found["rate_two_threads"] = len(data) / (time.perf_counter() - began)
    return found


def opening(folder: str, threads: int) -> dict[str, float]:
    """Seconds from nothing open to the first batch; and from a stored state to the batch behind it."""
    began = time.perf_counter()
    data = DatasetFolder(folder)
    first = next(iter(Loader(data, decoder(), BATCH, threads=threads)))
    opened = time.perf_counter()
    assert first.weight.all()
    state = {
        "seed": 3,
        "epoch": 5,
        "consumed": len(data) // 2 // BATCH * BATCH,
        "samples": len(data),
    }
    begun = time.perf_counter()
    loader = Loader(data, decoder(), BATCH, threads=threads)
    loader.load_state_dict(state)
    resumed = next(iter(loader))
    assert resumed.weight.all()
    return {"first_batch_s": opened - began, "resume_s": time.perf_counter() - begun}


class SomeDecoded(PhotoBatches):
    """Decodes one sample in so many; the members of all are read."""

    def decode(self, sample: Sample, arrays: dict[str, Any], slot: int) -> None:
        """Fills some slots."""
        if sample.number % DECODED == 0:
            super().decode(sample, arrays, slot)


def memory(folder: str, threads: int) -> dict[str, float]:
    """Resident MB after each tenth of an epoch, and the peak of the whole process."""
    data = DatasetFolder(folder)
    loader = Loader(data, SomeDecoded(PHOTO_PX, PHOTO_PX), MEMORY_BATCH, threads=threads)
    steps = len(data) // MEMORY_BATCH
    resident = []
    for number, _ in enumerate(loader, start=1):
        if number % max(steps // 10, 1) == 0:
            resident.append(_resident_mb())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert loader.position == Position(0, 1, 0)
    return {"peak_mb": peak, "first_tenth_mb": resident[0], "last_tenth_mb": resident[-1]}


def _resident_mb() -> float:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["batches", "kernel", "raw", "opening", "memory"])
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6)
    given = parser.parse_args()
    if given.what in ("batches", "kernel"):
        found = (batches if given.what == "batches" else kernel)(given.folder, given.threads, given.seconds)
    elif given.what == "raw":
        found = raw(given.folder)
    else:
        found = (opening if given.what == "opening" else memory)(given.folder, given.threads)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
