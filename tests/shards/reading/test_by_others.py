"""Libraries that read WebDataset find in our tars what we find by our index.

Energon and Hugging Face datasets do so in benchmarks/reading.py, in an environment of their own.
"""

import io
import shutil
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import webdataset
from webdataset.gopen import gopen_schemes

from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import json_bytes
from shards.reading.folder import DatasetFolder
from shards.tools.export import export
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.reshard import reshard
from shards.tools.split import split_by_identity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 groups of one to three photos in four shards, with members of all sizes and a key of 200 letters."""
    path = tmp_path_factory.mktemp("others")
    random = np.random.default_rng(2)
    with DatasetWriter(str(path), max_samples=8) as writer:
        for group in range(30):
            key = f"g{group:03d}-é" if group == 4 else f"g{group:03d}" + "x" * (200 if group == 9 else 0)
            members = {"json": json_bytes({"photos": 1 + group % 3})}
            for photo in range(1 + group % 3):
                size = int(random.integers(0, 3)) * 512 + int(random.integers(0, 512))
                members[f"{photo:03d}.jpg"] = random.bytes(size + 1)
                members[f"{photo:03d}.regions.png"] = random.bytes(512)
                members[f"{photo:03d}.json"] = json_bytes({"width": 4, "height": 4, "caption": "é"})
            writer.add(key, members)
        writer.close("others", {})
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> dict[str, dict[str, bytes]]:
    """Members by key."""
    data = DatasetFolder(str(folder))
    return {data.read(n).key: data.read(n).members for n in range(len(data))}


def _tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def test_webdataset_reads_the_same_members(folder: Path, ours: dict[str, dict[str, bytes]]) -> None:
    read = {
        sample["__key__"]: {name: data for name, data in sample.items() if not name.startswith("__")}
        for sample in webdataset.WebDataset(_tars(folder), shardshuffle=False)
    }
    assert read == ours


def test_ray_reads_the_same_members(
    folder: Path, ours: dict[str, dict[str, bytes]], ray_address: str
) -> None:
    import ray

    rows = ray.data.read_webdataset(_tars(folder), decoder=None, override_num_blocks=1).take_all()
    read = {
        row["__key__"]: {name: bytes(data) for name, data in row.items() if isinstance(data, bytes)}
        for row in rows
    }
    assert read == ours


def test_a_reader_that_keeps_copies_by_name_reads_every_dataset_as_what_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """webdataset's `cache_dir` knows a shard by its last name: parts of a split, a reshard and its source,
    an export and a split into the same folder once more must have no name in common."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setitem(gopen_schemes, "https", lambda url, *_, **__: io.FileIO(urlparse(url).path))

    def read_and_compare(*datasets: Path) -> None:
        for dataset in datasets:
            urls = [f"https://store.invalid{path}" for path in _tars(dataset)]
            read = webdataset.WebDataset(urls, shardshuffle=False, cache_dir=str(cache), empty_check=False)
            rows = DatasetFolder(str(dataset))
            assert [sample["__key__"] for sample in read] == [rows.index.key(n) for n in range(len(rows))]

    parts = [tmp_path / "train", tmp_path / "held-out"]
    split_by_identity(str(folder), [str(part) for part in parts], [0.7, 0.3], max_samples=4)
    reshard(str(folder), str(tmp_path / "larger"), max_samples=11, max_bytes=2**30)
    export(str(folder), str(tmp_path / "images"), "images")
    read_and_compare(folder, *parts, tmp_path / "larger", tmp_path / "images")
    for part in parts:
        shutil.rmtree(part)
    split_by_identity(str(folder), [str(part) for part in parts], [0.5, 0.5], max_samples=4)
    read_and_compare(*parts)
    assert (cache / "000000.tar").exists()  # it does keep them by their last names
    forget(str(parts[0]), IdsToForget(keys=frozenset([DatasetFolder(str(parts[0])).index.key(0)])))
    read_and_compare(*parts)
