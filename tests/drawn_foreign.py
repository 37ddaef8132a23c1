"""Tars as other programs write them: img2dataset, and what else people have."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 24  # of every picture as it lies in its bytes
_ORIENTATION = 0x0112
# What img2dataset 1.47 writes of a photo beside its columns and checksum, with all re-encoding disabled.
_STATUS = {
    "status": "success", "error_message": None, "width": None, "height": None,
    "original_width": None, "original_height": None, "exif": "{}",
}  # fmt: skip


def photo(number: int, orientation: int = 1, form: str = "JPEG") -> bytes:
    """An encoded photo of its own, with its EXIF orientation."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    random = np.random.default_rng(number)
    sink = io.BytesIO()
    picture = Image.fromarray(random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    picture.save(sink, form, exif=exif)
    return sink.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.mode, header.uname = len(data), 0o444, "bigdata"
            tar.addfile(header, io.BytesIO(data))
    return path


def img2dataset_members(
    count: int, licences: Sequence[str | None], *, column: str = "LICENSE", ending: str = "jpg"
) -> list[tuple[str, bytes]]:
    """KEY.jpg, KEY.json and KEY.txt of each photo; every second one lies on its side."""
    members = []
    for number in range(count):
        data, key = photo(number, 6 if number % 2 else 1), f"{number:09d}"
        record: dict[str, Any] = {
            column: licences[number % len(licences)],
            "caption": f"a person {number}",
            "url": f"https://example.org/{number}.jpg",
            "key": key,
            **_STATUS,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        members += [
            (f"{key}.{ending}", data),
            (f"{key}.json", json.dumps(record, indent=4).encode()),
            (f"{key}.txt", record["caption"].encode()),
        ]
    return members


def write_img2dataset(folder: Path, *, photos: int = 6, per_shard: int = 3, **record: Any) -> Path:
    """A folder as img2dataset leaves it: tars, and beside each its Parquet and its statistics."""
    folder.mkdir(parents=True)
    members = img2dataset_members(photos, **{"licences": ("CC-BY-4.0", None, "CC0-1.0"), **record})
    for shard in range(-(-photos // per_shard)):
        mine = members[3 * per_shard * shard : 3 * per_shard * (shard + 1)]
        write_tar(folder / f"{shard:05d}.tar", mine)
        keys = [name.removesuffix(".txt") for name, _ in mine if name.endswith(".txt")]
        _write_listing(folder / f"{shard:05d}.parquet", keys)
        (folder / f"{shard:05d}_stats.json").write_text(
            json.dumps({"count": len(keys), "successes": len(keys)})
        )
    return folder


def _write_listing(path: Path, keys: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls = [f"https://example.org/{int(key)}.jpg" for key in keys]
    pq.write_table(pa.table({"url": urls, "key": keys, "status": ["success"] * len(keys)}), path)


def write_side_files(folder: Path) -> list[str]:
    """What Energon 7.4 (`energon prepare`), DALI (`wds2idx`) and wids write beside the tars of a folder."""
    tars = sorted(path.name for path in folder.glob("*.tar"))
    written = []
    for tar in tars:
        (folder / f"{tar}.idx").write_bytes(bytes(16))
        (folder / f"{tar.removesuffix('.tar')}.idx").write_text("v1.2 1\njpg 512 10 a.jpg\n")
        written += [f"{tar}.idx", f"{tar.removesuffix('.tar')}.idx"]
    (folder / ".nv-meta").mkdir()
    counts = {"energon_version": "7.4.1", "shard_counts": dict.fromkeys(tars, 1)}
    (folder / ".nv-meta/.info.json").write_text(json.dumps(counts, indent=2))
    (folder / ".nv-meta/split.yaml").write_text("exclude: []\nsplit_parts:\n  train:\n  - '{000..001}.tar'\n")
    wids = {"__kind__": "wids-shard-index-v1", "shardlist": [{"url": tar, "nsamples": 1} for tar in tars]}
    (folder / "people.json").write_text(json.dumps(wids))
    return sorted([*written, ".nv-meta", "people.json"])
