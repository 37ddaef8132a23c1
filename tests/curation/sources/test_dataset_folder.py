"""A dataset folder: written whole or not at all, opened at once, every member where the index says."""

import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
import xxhash

from shards.format.dataset import DatasetError
from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import SCHEMA_VERSION
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader


def _samples(count: int) -> dict[str, dict[str, bytes]]:
    random = np.random.default_rng(3)
    found = {}
    for number in range(count):
        picture = random.integers(0, 255, (24 + number % 3, 32, 3), np.uint8)
        data = bytes(cv2.imencode(".jpg", picture)[1])
        record = {
            "width": 32,
            "height": picture.shape[0],
            "regions": ["head", "legs"],
            "caption": "one two three",
        }
        found[f"k{number:03d}"] = {
            "json": json.dumps({"photos": 1}).encode(),
            "000.jpg": data,
            "000.json": json.dumps(record).encode(),
        }
    return found


def _write(folder: Path, samples: dict[str, dict[str, bytes]], **limits: Any) -> Path:
    folder.mkdir(exist_ok=True)
    with DatasetWriter(str(folder), **limits) as writer:
        for key, members in samples.items():
            writer.add(key, members)
        writer.close("drawn", {})
    return folder


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, bytes]]:
    """50 samples by key."""
    return _samples(50)


@pytest.fixture
def folder(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """A dataset of 50 samples in shards of 8."""
    return _write(tmp_path / "data", samples, max_samples=8)


def test_every_sample_is_read_back_by_its_number(folder: Path, samples: dict[str, dict[str, bytes]]) -> None:
    dataset = DatasetFolder(str(folder))
    assert len(dataset) == 50
    assert [dataset.read(number).key for number in range(50)] == list(samples)
    assert all(dataset.read(number).members == samples[f"k{number:03d}"] for number in range(50))


def test_only_the_members_that_are_asked_for_are_read(
    folder: Path, samples: dict[str, dict[str, bytes]]
) -> None:
    dataset = DatasetFolder(str(folder), suffixes=["000.jpg"])
    assert dataset.read(9).members == {"000.jpg": samples["k009"]["000.jpg"]}


def test_the_index_tells_photos_aspect_regions_and_words(folder: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "index.parquet").to_pylist()
    assert [row["people"] for row in rows] == [1] * 50
    assert rows[1]["aspect"] == pytest.approx([32 / 25])
    assert rows[0]["regions"] == [0b01010]
    assert rows[0]["tokens"] == [3]
    assert {row["shard"] for row in rows} == set(range(7))


def test_webdataset_and_tar_read_the_same_members(folder: Path, samples: dict[str, dict[str, bytes]]) -> None:
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    read = {s["__key__"]: s for s in webdataset.WebDataset(tars, shardshuffle=False)}
    assert {key: {n: v for n, v in s.items() if not n.startswith("__")} for key, s in read.items()} == samples
    names = []
    for path in tars:
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert names == [f"{key}.{suffix}" for key, members in samples.items() for suffix in members]


def test_two_writers_give_the_same_bytes(
    folder: Path, tmp_path: Path, samples: dict[str, dict[str, bytes]]
) -> None:
    other = _write(tmp_path / "again", samples, max_samples=8)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_shards_keep_to_the_bytes_they_are_allowed(
    tmp_path: Path, samples: dict[str, dict[str, bytes]]
) -> None:
    folder = _write(tmp_path / "small", samples, max_bytes=20_000)
    sizes = [path.stat().st_size for path in folder.glob("*.tar")]
    assert len(sizes) > 3
    assert max(sizes) <= 20_000 + 1024


def test_a_writer_that_is_left_leaves_no_dataset(
    tmp_path: Path, samples: dict[str, dict[str, bytes]]
) -> None:
    def write_half() -> None:
        with DatasetWriter(str(tmp_path), max_samples=8) as writer:
            for key, members in samples.items():
                writer.add(key, members)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".tmp", ".json", ".arrow", ".parquet")]
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        DatasetFolder(str(tmp_path))


def test_a_flipped_bit_is_named_and_skipped_by_the_loader(
    folder: Path, samples: dict[str, dict[str, bytes]]
) -> None:
    dataset = DatasetFolder(str(folder))
    place = dataset.index.members(20)[1]
    file = folder / dataset.about["shards"][place.shard]["name"]
    data = bytearray(file.read_bytes())
    data[place.offset + 5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"000002\.tar: member 000\.jpg .* is not what was written"):
        DatasetFolder(str(folder)).read(20)

    class Keys:
        def allocate(self, batch: int) -> dict[str, Any]:
            return {"key": [None] * batch}

        def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
            arrays["key"][slot] = sample.key

    loader = Loader(DatasetFolder(str(folder)), Keys(), 10)
    read = {
        key
        for batch in loader
        for key, weight in zip(batch.arrays["key"], batch.weight, strict=True)
        if weight
    }
    assert read == set(samples) - {"k020"}
    assert len(loader.broken) == 1


def test_a_shard_that_is_cut_or_gone_is_an_error_that_names_it(folder: Path) -> None:
    file = folder / "000001.tar"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(OSError, match=r"000001\.tar: ends at byte 2000"):
        DatasetFolder(str(folder)).read(15)
    file.unlink()
    with pytest.raises(OSError, match=r"000001\.tar"):
        DatasetFolder(str(folder)).read(15)


def test_a_newer_schema_is_refused_in_one_line(folder: Path) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    newer = f"{int(SCHEMA_VERSION.split('.')[0]) + 1}.0"
    (folder / "dataset.json").write_text(json.dumps({**about, "schema": newer}))
    with pytest.raises(DatasetError, match=f"has schema {newer}; this version of persona reads up to"):
        DatasetFolder(str(folder))


def test_an_index_of_another_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    other = _write(tmp_path / "other", _samples(4))
    (folder / "index.arrow").write_bytes((other / "index.arrow").read_bytes())
    with pytest.raises(DatasetError, match=r"4 samples, dataset\.json 50"):
        DatasetFolder(str(folder))


def test_dataset_json_has_the_checksums_of_both_indexes(folder: Path) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    for name in ("index.parquet", "index.arrow"):
        assert about["index"][name] == xxhash.xxh3_128_hexdigest((folder / name).read_bytes())
