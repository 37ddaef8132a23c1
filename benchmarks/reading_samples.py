"""The samples of benchmarks/reading.py: seeded, each with pixels, labels and a record of its own.

A photo is 512 × 512 px of smooth colours (a few large shapes, as a person before a wall has them) under
grain, saved as JPEG at quality 85: 90 KB on average. Its label map holds some ellipses of the 18 labels, its
record what `shards.format.sample` states for a photo. Each sample is drawn anew; nothing is reused.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from shards.format.dataset import dataset_bytes
from shards.format.dataset_writer import DatasetWriter
from shards.format.index import IndexWriter
from shards.format.sample import label_png

PHOTO_PX = 512
QUALITY = 85
GRAIN = 11.5  # standard deviation, of 255
PER_SHARD = 500
_GRAIN_SIDE = 1024


def samples(count: int, seed: int = 7) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {suffix: bytes}) of `count` samples, in the order of their keys."""
    grain = np.random.default_rng(seed).normal(0, GRAIN, (_GRAIN_SIDE, _GRAIN_SIDE)).astype(np.int16)
    for number in range(count):
        random = np.random.default_rng((seed, number))
        photo = _photo(random, grain)
        labels = _labels(random)
        yield (
            f"{number:08d}",
            {
                "000.jpg": simplejpeg.encode_jpeg(photo, QUALITY, "RGB", "420"),
                "000.regions.png": label_png(labels, compress_level=1),
                "000.json": _record(random, number),
            },
        )


def dataset(folder: Path, count: int) -> Path:
    """A dataset of these samples; written once, then found."""
    found = folder / f"samples-{count}"
    if not (found / "dataset.json").exists():
        found.mkdir(parents=True, exist_ok=True)
        with DatasetWriter(str(found), max_samples=PER_SHARD) as writer:
            for key, members in samples(count):
                writer.add(key, members)
            writer.close("benchmark", {})
    return found


def digest_of(found: Iterable[tuple[str, Mapping[str, bytes]]]) -> dict[str, Any]:
    """Number and digest of samples, whatever their order, as benchmarks/peers/measure.py has it."""
    lines = []
    for key, members in found:
        record = json.dumps(json.loads(members["000.json"]), sort_keys=True).encode()
        parts = (key.encode(), members["000.jpg"], members["000.regions.png"], record)
        lines.append("".join(hashlib.sha256(part).hexdigest() for part in parts))
    return {"samples": len(lines), "digest": hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()}


def _photo(random: np.random.Generator, grain: np.ndarray) -> np.ndarray:
    coarse = random.integers(0, 255, (9, 9, 3), np.uint8)
    smooth = cv2.resize(coarse, (PHOTO_PX, PHOTO_PX), interpolation=cv2.INTER_CUBIC)
    top, left = random.integers(0, _GRAIN_SIDE - PHOTO_PX, 2)
    rough = grain[top : top + PHOTO_PX, left : left + PHOTO_PX, None]
    return np.clip(smooth + rough, 0, 255).astype(np.uint8)


def _labels(random: np.random.Generator) -> np.ndarray:
    labels = np.zeros((PHOTO_PX, PHOTO_PX), np.uint8)
    for label in range(1, 18):
        centre = [int(value) for value in random.integers(100, 412, 2)]
        axes = [int(value) for value in random.integers(10, 90, 2)]
        cv2.ellipse(labels, centre, axes, float(random.uniform(0, 180)), 0, 360, label, -1)
    return labels


def _record(random: np.random.Generator, number: int) -> bytes:
    photo_id = hashlib.sha256(str(number).encode()).hexdigest()
    numbers = np.round(random.uniform(0, PHOTO_PX, 51 + 14), 2).tolist()
    record = {
        "photo_id": photo_id,
        "person_id": f"{photo_id}-0",
        "file_name": f"{number}.jpg",
        "width": PHOTO_PX,
        "height": PHOTO_PX,
        "orientation": 1,
        "box": [40.0, 20.0, 470.0, 500.0],
        "box_score": 0.9,
        "keypoints": numbers[:51],
        "face_box": numbers[51:55],
        "face_points": numbers[55:],
        "face_score": 0.9,
        "regions": ["full_body", "head", "torso", "legs", "shoes"],
        "caption": f"a person stands in front of a wall and looks to the left, photo {number}",
        "licence": "CC0-1.0",
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def large_index(source: Path, folder: Path, samples: int) -> Path:
    """`folder` with `samples` rows over links to the shards of `source`; written once, then found."""
    if (folder / "dataset.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads((source / "dataset.json").read_text())
    for shard in about["shards"]:
        link = folder / shard["name"]
        if not link.exists():
            link.symlink_to((source / shard["name"]).resolve())
    rows = pq.read_table(source / "index.parquet")
    with IndexWriter(str(folder)) as writer:
        for start in range(0, samples, rows.num_rows):
            part = rows.slice(0, min(rows.num_rows, samples - start))
            keys = pa.array([f"{number:08d}" for number in range(start, start + part.num_rows)])
            writer.write(part.set_column(0, rows.schema.field("key"), keys))
        hashes = writer.close()
    (folder / "dataset.json").write_bytes(
        dataset_bytes(about["shards"], {"groups": samples, "index": hashes})
    )
    return folder
