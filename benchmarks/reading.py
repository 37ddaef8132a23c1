"""How fast shards are read, beside other libraries: python benchmarks/reading.py

On the same 20,000 samples (reading_samples.py) and on two cores, in one run:
1. samples/s of decoded batches (64 photos of 512 px, label maps, records) of webdataset, energon, litdata,
   MosaicML streaming, Hugging Face datasets, our reader, and of our decode kernel alone. Each in a process of
   its own, behind its first batches. A peer's settings (workers; Pillow, or the decode kernel of our reader)
   are first tried one by one; then its best takes part in rounds in which all follow each other. Medians.
   Samples per CPU second of all its processes say what a contender costs, also on a machine that is busy.
2. samples/s of encoded members in one thread, as they lie in the tars: ours with checksums, and webdataset.
   Beside them ours in the order of an epoch, which reads here and there, and in two threads.
3. Whether webdataset, energon and datasets find the same members in our tars.
4. An index of a million samples: seconds to the first batch, seconds to resume in the middle of an epoch
   (fresh processes, imports not counted), memory over an epoch (batches of 16; one sample in 50 decoded).
5. The rate from an object store with 20 ms of latency, and on a bad day, over the local one.
6. Neighbours from one shard, over those of a perfect shuffle.

Page cache warm: the files of each contender are let go by the cache, and read once from their beginning.
What cannot be measured here is said and is null in the last line, which is JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.peer_environment import peer_python  # noqa: E402
from benchmarks.reading_samples import (  # noqa: E402
    dataset,
    digest_of,
    large_index,
)
from shards.reading.folder import DatasetFolder  # noqa: E402
from shards.reading.order import EpochOrder  # noqa: E402

PEERS = ("webdataset", "energon", "litdata", "streaming", "datasets")
CORES = 2
TRY_S = 2.5
TIMEOUT_S = 240.0
OPENINGS = 3
SMALL = 256  # samples of which every byte is compared
ADJACENCY_EPOCHS = 40


@dataclass
class Contender:
    """One that takes part in the rounds: its command; samples/s and per CPU second, round by round."""

    name: str
    command: list[str]
    rates: list[float] = field(default_factory=list)
    per_cpu_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Median."""
        return statistics.median(self.rates) if self.rates else None


def main() -> int:
    """Everything, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--data", default="/tmp/persona-reading", help="where samples are kept")
    parser.add_argument("--seconds", type=float, default=6, help="of each contender in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--index-samples", type=int, default=1_000_000)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--no-object-store", action="store_true")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # and of all that is started from here
    folder = dataset(Path(given.data), given.samples)
    warm(folder)
    found: dict[str, Any] = {"samples": given.samples, "cores": len(cores)}
    found |= rates(folder, given)
    python = found.pop("python")
    found |= raw_rates(folder, python)
    found |= same_members(Path(given.data), python)
    found |= with_large_index(folder, Path(given.data), given.index_samples)
    found |= {} if given.no_object_store else object_store(folder)
    found |= adjacency(folder)
    print(json.dumps({name: rounded(value) for name, value in found.items()}))
    return 0


# --- 1. decoded batches --------------------------------------------------------------------------


def rates(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """samples/s of all, and our rate over theirs."""
    python, contenders = None, []
    if given.peers:
        try:
            python = str(peer_python())
        except RuntimeError as error:
            print(error, file=sys.stderr)
    for name in given.peers if python else ():
        try:
            contenders.append(best_of(name, python, folder, Path(given.data)))
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
    ours = Contender("ours", [*own("batches", folder), "--seconds", str(given.seconds)])
    kernel = Contender("decode kernel", [*own("kernel", folder), "--seconds", str(given.seconds)])
    contenders += [ours, kernel]
    for peer in contenders[:-2]:
        peer.command += ["--seconds", str(given.seconds)]
    for _ in range(given.rounds):
        for contender in contenders:
            try:
                found = json_of(contender.command)
                contender.rates.append(found["rate"])
                contender.per_cpu_s.append(found["per_cpu_s"])
            except RuntimeError as error:
                print(f"{contender.name}: {error}", file=sys.stderr)
    print(f"\n{given.samples} samples, decoded batches, {CORES} cores, median of {given.rounds} rounds")
    for contender in contenders:
        rate = contender.rate
        text = (
            "failed" if rate is None else f"{rate:8.0f}/s   {' '.join(f'{r:.0f}' for r in contender.rates)}"
        )
        print(f"  {contender.name:<42}{text}")
    by_peer = {peer.name.split(",")[0]: peer.rate for peer in contenders[:-2]}
    peers = [rate for rate in by_peer.values() if rate]
    return {
        "python": python,
        "vs_webdataset": over(ours.rate, by_peer.get("webdataset")),
        "vs_best_peer": over(ours.rate, max(peers, default=None)),
        "vs_kernel": over(ours.rate, kernel.rate),
        "rates": {c.name: rounded(c.rate) for c in contenders},
        "per_cpu_s": {c.name: rounded(statistics.median(c.per_cpu_s)) for c in contenders if c.rates},
        "load": os.getloadavg()[0],
    }


def best_of(name: str, python: str | None, folder: Path, kept: Path) -> Contender:
    """The peer with the settings that were fastest when each was tried for a moment."""
    assert python is not None
    script = [python, str(ROOT / "benchmarks" / "peers" / f"{name}_peer.py")]
    prepared = kept / f"{name}-{folder.name}"
    if not (kept / f"{prepared.name}.done").exists():
        for left in (prepared, kept / f"{prepared.name}-cache"):
            left.unlink() if left.is_symlink() else shutil.rmtree(left, ignore_errors=True)
        run([*script, "prepare", str(folder), str(prepared)])
        (kept / f"{prepared.name}.done").touch()
    if not prepared.is_symlink():  # the tars themselves
        warm(prepared, "**/*")
    tried: dict[tuple[int, str], float] = {}
    problem = ""
    for workers, decoder in ((2, "turbo"), (3, "turbo"), (1, "turbo"), (2, "pillow")):
        if name != "webdataset" and workers == 1:
            continue
        command = [*script, "read", str(prepared), "--workers", str(workers), "--decoder", decoder]
        try:
            tried[workers, decoder] = json_of([*command, "--seconds", str(TRY_S)])["rate"]
        except RuntimeError as error:
            problem = str(error)
    print(f"{name}: " + ", ".join(f"{w} workers, {d}: {rate:.0f}/s" for (w, d), rate in tried.items()))
    if not tried:
        raise RuntimeError(f"does not run here: {problem}")
    workers, decoder = max(tried, key=lambda settings: tried[settings])
    command = [*script, "read", str(prepared), "--workers", str(workers), "--decoder", decoder]
    return Contender(f"{name}, {workers} workers, {decoder}", command)


# --- 2. encoded members --------------------------------------------------------------------------


def raw_rates(folder: Path, python: str | None) -> dict[str, Any]:
    """samples/s of encoded members in one process; in one thread but where two are named."""
    ours, unchecked, shuffled, together, theirs = [], [], [], [], []
    peer = [str(python), str(ROOT / "benchmarks" / "peers" / "webdataset_peer.py"), "raw", str(folder)]
    for _ in range(5):
        found = json_of(own("raw", folder))
        ours.append(found["rate"])
        unchecked.append(found["rate_unchecked"])
        shuffled.append(found["rate_shuffled"])
        together.append(found["rate_two_threads"])
        if python is not None:
            theirs.append(json_of(peer)["rate"])
    rate, other = statistics.median(ours), statistics.median(theirs) if theirs else None
    print("\nencoded members, one process")
    print(f"  ours, by index, checksums compared        {rate:8.0f}/s")
    print(f"  ours, checksums not compared              {statistics.median(unchecked):8.0f}/s")
    print(f"  ours, by index, shuffled, checksums       {statistics.median(shuffled):8.0f}/s")
    print(f"  ours, by index, checksums, two threads    {statistics.median(together):8.0f}/s")
    print(f"  webdataset                                {other or 0:8.0f}/s")
    return {
        "raw_vs_webdataset": over(rate, other),
        "raw_shuffled_vs_webdataset": over(statistics.median(shuffled), other),
        "raw_two_threads_vs_webdataset": over(statistics.median(together), other),
        "raw_rate": rate,
    }


# --- 3. the same members -------------------------------------------------------------------------


def same_members(kept: Path, python: str | None) -> dict[str, Any]:
    """Which other libraries find the same samples in our tars, byte by byte."""
    if python is None:
        return {"same_members": None}
    small = dataset(kept, SMALL)
    data = DatasetFolder(str(small))
    wanted = digest_of((data.read(n).key, data.read(n).members) for n in range(len(data)))
    found: dict[str, Any] = {}
    for name in ("webdataset", "energon", "datasets"):
        script = [python, str(ROOT / "benchmarks" / "peers" / f"{name}_peer.py")]
        try:
            prepared = small
            if name == "energon":
                prepared = kept / f"energon-{small.name}"
                shutil.rmtree(prepared, ignore_errors=True)
                run([*script, "prepare", str(small), str(prepared)])
            found[name] = json_of([*script, "members", str(prepared)]) == wanted
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
            found[name] = None
    print(f"\nthe same members of {SMALL} samples: {json.dumps(found)}")
    return {"same_members": found}


# --- 4. a large index ----------------------------------------------------------------------------


def with_large_index(folder: Path, kept: Path, samples: int) -> dict[str, Any]:
    """Opening, resuming, memory."""
    large = large_index(folder, kept / f"{folder.name}-index-{samples}", samples)
    warm(large, "index.arrow")
    openings = [json_of(own("opening", large)) for _ in range(OPENINGS)]
    first = statistics.median(found["first_batch_s"] for found in openings)
    resume = statistics.median(found["resume_s"] for found in openings)
    memory = json_of(own("memory", large))
    print(f"\nan index of {samples} samples")
    print(f"  first batch {first:.3f} s, resume {resume:.3f} s")
    print(
        f"  memory: {memory['first_tenth_mb']:.0f} MB after a tenth of the epoch, "
        f"{memory['last_tenth_mb']:.0f} MB at its end, peak {memory['peak_mb']:.0f} MB"
    )
    return {
        "first_batch_s": first,
        "resume_s": resume,
        "memory_mb": memory["peak_mb"],
        "memory_growth_mb": memory["last_tenth_mb"] - memory["first_tenth_mb"],
    }


# --- 5. an object store --------------------------------------------------------------------------


def object_store(folder: Path) -> dict[str, Any]:
    """Rates over the local one; see reading_object_store.py."""
    from benchmarks.reading_object_store import s3_vs_local

    try:
        found = s3_vs_local(folder, threads=CORES, passes=2)
    except (OSError, RuntimeError) as error:
        print(f"object store: {error}", file=sys.stderr)
        return {"s3_vs_local": None, "s3_faulty_vs_local": None}
    print(f"\nobject store, 20 ms: {json.dumps(found)}")
    return {"s3_vs_local": found["s3_vs_local"], "s3_faulty_vs_local": found["s3_vs_local_bad_day"]}


# --- 6. the shuffle ------------------------------------------------------------------------------


def adjacency(folder: Path) -> dict[str, Any]:
    """Of samples in a row, how many come from one shard, over the share in a perfect shuffle."""
    data = DatasetFolder(str(folder))
    shard = data.index.spans(np.arange(len(data)))[0]
    found = []
    for epoch in range(ADJACENCY_EPOCHS):
        read = shard[EpochOrder(len(data), 0, epoch)(np.arange(len(data)))]
        found.append(float((read[1:] == read[:-1]).mean()))
    sizes = np.bincount(shard)
    perfect = float((sizes * (sizes - 1)).sum()) / (len(data) * (len(data) - 1))
    print(
        f"\nneighbours from one shard: {statistics.mean(found):.5f}, perfect shuffle {perfect:.5f} "
        f"({len(sizes)} shards, {ADJACENCY_EPOCHS} epochs)"
    )
    return {"shuffle_adjacency": statistics.mean(found) / perfect}


# --- processes -----------------------------------------------------------------------------------


def own(what: str, folder: Path) -> list[str]:
    """A command of reading_ours.py."""
    return [sys.executable, "-m", "benchmarks.reading_ours", what, str(folder)]


def json_of(command: Sequence[str]) -> dict[str, float]:
    """The last line that a command prints."""
    lines = run(command).strip().splitlines()
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError):
        raise RuntimeError("printed no result") from None


def run(command: Sequence[str]) -> str:
    """What a command prints. Raises RuntimeError with the last line of its errors.

    Its output goes to files: a worker that outlives it would keep a pipe open.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            done = subprocess.run(
                list(command), stdout=out, stderr=errors, cwd=ROOT, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done after {TIMEOUT_S:.0f} s") from None
        out.seek(0)
        errors.seek(0)
        if done.returncode:
            lines = errors.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"ended with code {done.returncode}")
        return out.read()


def warm(folder: Path, pattern: str = "*.tar") -> None:
    """Leaves files in the page cache as one reading from disk does, however they came there before.

    What wrote a file, and in which portions, decides on the size of its pages in the cache, and so by a
    factor of two on what reading them costs. Who reads shards mostly did not just write them.
    """
    for path in sorted(folder.glob(pattern)):
        if not path.is_file():
            continue
        with path.open("rb", buffering=0) as stream:
            os.fsync(stream.fileno())  # what is not on disk yet cannot be let go
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while stream.read(2**20):
                pass


def over(ours: float | None, theirs: float | None) -> float | None:
    """A ratio; None where one of both was not measured."""
    return ours / theirs if ours and theirs else None


def rounded(value: Any) -> Any:
    """Four significant digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
