"""What the scripts of all peers share: their commands, decoding, and the clock.

    python benchmarks/peers/NAME.py prepare DATASET FOLDER     writes what the library reads
    python benchmarks/peers/NAME.py read FOLDER --workers 2 --decoder turbo --seconds 6
    python benchmarks/peers/NAME.py members FOLDER             what it finds in our tars, as a digest

A peer yields batches (images uint8 [64, 512, 512, 3], masks uint8 [64, 512, 512], records list [64]) for
ever. `read` prints {"rate": samples/s} of the time behind the first batches, in which workers start.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before the libraries are imported: threads of their own would be more than the cores.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import orjson  # noqa: E402
import psutil  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from shards.format.label_maps import decode_labels  # noqa: E402

BATCH = int(os.environ.get("SMOKE_BATCH", 64))
SHUFFLE = 1000  # samples of a shuffle buffer, where a library has one
WARM_BATCHES = 1 if "SMOKE" in os.environ else 8
NAMES = ("000.jpg", "000.regions.png", "000.json")

Decoded = tuple[torch.Tensor, torch.Tensor, Any]
Batch = tuple[torch.Tensor, torch.Tensor, list[Any]]


def pillow(photo: bytes, labels: bytes, record: bytes) -> Decoded:
    """What the libraries use by themselves."""
    image = np.array(Image.open(io.BytesIO(photo)).convert("RGB"))
    mask = np.array(Image.open(io.BytesIO(labels)))
    return torch.from_numpy(image), torch.from_numpy(mask), json.loads(record)


def turbo(photo: bytes, labels: bytes, record: bytes) -> Decoded:
    """The kernel of our own reader: libjpeg-turbo, zlib-ng, orjson."""
    image = simplejpeg.decode_jpeg(photo, "RGB")
    mask = np.array(decode_labels(labels))
    return torch.from_numpy(image), torch.from_numpy(mask), orjson.loads(record)


DECODERS = {"pillow": pillow, "turbo": turbo}


def collate(samples: list[Decoded]) -> Batch:
    """A batch. In a worker process torch stacks right into memory that is shared."""
    images, masks, records = zip(*samples, strict=True)
    default = torch.utils.data.default_collate
    return default(list(images)), default(list(masks)), list(records)


def source_samples(dataset: str) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Encoded (photo, labels, record) of the tars of a dataset, in their order."""
    import webdataset

    tars = [str(path) for path in sorted(Path(dataset).glob("*.tar"))]
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        yield sample[NAMES[0]], sample[NAMES[1]], sample[NAMES[2]]


def digest_of(samples: Iterator[tuple[str, dict[str, bytes]]]) -> dict[str, Any]:
    """Number and digest of samples, whatever their order: keys, bytes of pictures, content of records."""
    found = []
    for key, members in samples:
        record = json.dumps(json.loads(members[NAMES[2]]), sort_keys=True).encode()
        parts = (key.encode(), members[NAMES[0]], members[NAMES[1]], record)
        found.append("".join(hashlib.sha256(part).hexdigest() for part in parts))
    return {"samples": len(found), "digest": hashlib.sha256("".join(sorted(found)).encode()).hexdigest()}


def main(
    prepare: Callable[[str, str], None],
    read: Callable[[str, int, Callable[..., Decoded]], Iterator[Batch]],
    raw: Callable[[str], Iterator[Any]] | None = None,
    members: Callable[[str], Iterator[tuple[str, dict[str, bytes]]]] | None = None,
) -> None:
    """The command line of a peer."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("prepare")
    writing.add_argument("dataset")
    writing.add_argument("folder")
    reading = commands.add_parser("read")
    reading.add_argument("folder")
    reading.add_argument("--workers", type=int, default=2)
    reading.add_argument("--decoder", choices=DECODERS, default="pillow")
    reading.add_argument("--seconds", type=float, default=6)
    for name in ("raw", "members"):
        commands.add_parser(name).add_argument("folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "prepare":
        prepare(given.dataset, given.folder)
        return
    if given.command == "raw":
        assert raw is not None
        began = time.perf_counter()
        count = sum(1 for _ in raw(given.folder))
        print(json.dumps({"rate": count / (time.perf_counter() - began)}), flush=True)
        return
    if given.command == "members":
        assert members is not None
        print(json.dumps(digest_of(members(given.folder))), flush=True)
        return
    batches = read(given.folder, given.workers, DECODERS[given.decoder])
    print(json.dumps(rate_of(batches, given.seconds)), flush=True)
    # Workers of some libraries are waited for at exit, or outlive it.
    for worker in psutil.Process().children(recursive=True):
        worker.kill()
    os._exit(0)


def cpu_s() -> float:
    """CPU seconds so far of this process and its workers."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(found.user + found.system for found in times)


def rate_of(batches: Iterator[Batch], seconds: float) -> dict[str, float]:
    """Samples/s and samples per CPU second, from the moment that the pipeline is full."""
    for images, masks, records in itertools.islice(batches, WARM_BATCHES):
        assert tuple(images.shape) == (BATCH, 512, 512, 3), images.shape
        assert images.dtype == torch.uint8
        assert tuple(masks.shape) == (BATCH, 512, 512), masks.shape
        assert masks.max() == 17
        assert len(records) == BATCH
        assert records[0]["width"] == 512
    began, used = time.perf_counter(), cpu_s()
    count = 0
    for _, _, records in batches:
        count += len(records)
        if time.perf_counter() - began > seconds:
            break
    return {"rate": count / (time.perf_counter() - began), "per_cpu_s": count / (cpu_s() - used)}
