"""Datasets of other programs under our tools: what their records state is kept, counted and obeyed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

import persona
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.mixture import Mixture
from shards.reading.photo_batches import PhotoBatches
from shards.tools.build_index import build_index
from shards.tools.dataset_rows import DatasetRows
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.verify import verify
from tests.drawn_foreign import HEIGHT, WIDTH, photo, write_img2dataset, write_tar

LICENCES = {"CC-BY-4.0": 2, "CC0-1.0": 2, "not stated": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of img2dataset in two shards, indexed."""
    path = write_img2dataset(tmp_path / "img2dataset")
    build_index(str(path))
    return path


def shards(*words: Any) -> int:
    return persona.main(["shards", *map(str, words)])


def licences_of(folder: Path) -> dict[str, int]:
    return dict(json.loads((folder / "dataset.json").read_text())["licences"])


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The record of each sample, `KEY.json`."""
    data = DatasetFolder(str(folder))
    return [json.loads(data.read(number).members["json"]) for number in range(len(data))]


@pytest.mark.parametrize("column", ["license", "licence", "LICENSE", "License"])
def test_a_licence_counts_under_whatever_name_the_record_has_it(tmp_path: Path, column: str) -> None:
    folder = write_img2dataset(tmp_path / "data", column=column)
    build_index(str(folder))
    assert licences_of(folder) == LICENCES


def test_every_copy_of_a_foreign_dataset_counts_its_licences(folder: Path, tmp_path: Path) -> None:
    assert shards("merge", folder, "--out", tmp_path / "merged") == 0
    assert shards("reshard", folder, "--out", tmp_path / "resharded", "--max-samples", "1") == 0
    assert shards("split", folder, "--out", tmp_path / "a", tmp_path / "b", "--by", "0.5,0.5") == 0
    assert shards("export", folder, "--to", "images", "--out", tmp_path / "images") == 0
    assert licences_of(tmp_path / "merged") == licences_of(tmp_path / "resharded") == LICENCES
    assert licences_of(tmp_path / "images") == LICENCES
    parts = [licences_of(tmp_path / part) for part in "ab"]
    assert {name: sum(part.get(name, 0) for part in parts) for name in LICENCES} == LICENCES
    assert shards("diff", folder, tmp_path / "merged") == 0
    for name in ("merged", "resharded", "a", "b", "images"):
        assert verify(str(tmp_path / name)).problems == []


def test_forgetting_counts_licences_down_also_where_an_older_index_had_them_as_not_stated(
    folder: Path, tmp_path: Path
) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    (tmp_path / "old").mkdir()
    for path in folder.iterdir():
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "old/dataset.json").write_text(json.dumps({**about, "licences": {"not stated": 6}}))
    for data in (folder, tmp_path / "old"):
        forget(str(data), IdsToForget(keys=frozenset(["000000000"])))
    assert licences_of(folder) == {**LICENCES, "CC-BY-4.0": 1}
    assert licences_of(tmp_path / "old") == {"not stated": 5}


def test_indexing_again_counts_what_an_older_index_did_not(folder: Path) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, "licences": {"not stated": 6}}))
    build_index(str(folder))
    assert json.loads((folder / "dataset.json").read_text()) == about


def test_exported_images_keep_the_record_that_came_with_them(folder: Path, tmp_path: Path) -> None:
    assert shards("export", folder, "--to", "images", "--out", tmp_path / "images") == 0
    theirs, exported = records_of(folder), records_of(tmp_path / "images")
    assert [record.pop("group") for record in exported] == [record["key"] for record in theirs]
    assert exported == theirs


def test_exported_parquet_has_licence_and_the_size_of_the_upright_photo(folder: Path, tmp_path: Path) -> None:
    assert shards("export", folder, "--to", "parquet", "--out", tmp_path / "out") == 0
    rows = pq.read_table(tmp_path / "out/data").to_pylist()
    assert [row["licence"] for row in rows] == ["CC-BY-4.0", None, "CC0-1.0"] * 2
    assert [(row["width"], row["height"]) for row in rows] == [(WIDTH, HEIGHT), (HEIGHT, WIDTH)] * 3
    assert [json.loads(row["record"]) for row in rows] == records_of(folder)
    assert [row["caption"] for row in rows] == [f"a person {number}" for number in range(6)]


def test_names_that_become_one_name_are_refused_and_dots_in_folders_are_none(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("v1.0/a.jpg", photo(1)), ("v1/0/a.jpg", photo(2))])
    build_index(str(tmp_path))
    assert shards("export", tmp_path, "--to", "images", "--out", tmp_path / "twice") == 1
    (tmp_path / "one").mkdir()
    write_tar(tmp_path / "one/x.tar", [("v1.0/a.jpg", photo(1))])
    build_index(str(tmp_path / "one"))
    assert shards("export", tmp_path / "one", "--to", "images", "--out", tmp_path / "out") == 0
    assert DatasetFolder(str(tmp_path / "out")).read(0).key == "v1_0_a-000"


def test_proportions_of_foreign_photos_are_those_of_the_upright_picture(folder: Path, tmp_path: Path) -> None:
    flat, tall = np.float32(WIDTH / HEIGHT), np.float32(HEIGHT / WIDTH)
    assert DatasetFolder(str(folder)).index.photos.aspects.tolist() == [flat, tall] * 3
    for number, form in enumerate(("PNG", "WEBP", "JPEG")):
        write_tar(tmp_path / f"{number}.tar", [(f"{form}.{form.lower()}", photo(number, 8, form))])
    build_index(str(tmp_path))
    assert DatasetFolder(str(tmp_path)).index.photos.aspects.tolist() == [tall] * 3


@pytest.mark.parametrize("ending", ["JPG", "JPEG", "PNG", "Jpg"])
def test_photos_load_in_whatever_case_their_endings_are(tmp_path: Path, ending: str) -> None:
    data = photo(1, 6, "PNG" if ending == "PNG" else "JPEG")
    write_tar(
        tmp_path / "x.tar", [(f"a.{ending}", data), ("a.TXT", b"two words"), ("a.JSON", b'{"url": "u"}')]
    )
    build_index(str(tmp_path))
    dataset = DatasetFolder(str(tmp_path), suffixes=("jpg", "jpeg", "png", "json"))
    batch = next(iter(Loader(dataset, PhotoBatches(WIDTH, HEIGHT, photo="", masks=False), 1)))
    assert batch.weight.tolist() == [1.0]
    assert batch.arrays["records"] == [{"url": "u"}]
    upright = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(1, 0, 2)[:, ::-1]
    assert np.abs(batch.arrays["images"][0].astype(int) - upright).max() <= 3
    assert DatasetRows(str(tmp_path)).row(0)["tokens"] == [2]


def test_a_record_whose_orientation_is_a_word_is_no_error(tmp_path: Path) -> None:
    record = json.dumps({"orientation": "landscape", "photo_id": "51278"}).encode()
    write_tar(tmp_path / "x.tar", [("a.jpg", photo(1, 6)), ("a.json", record)])
    build_index(str(tmp_path))
    loader = Loader(
        DatasetFolder(str(tmp_path)), PhotoBatches(WIDTH, HEIGHT, photo="", masks=False, fit="contain"), 1
    )
    batch = next(iter(loader))
    assert (batch.weight.tolist(), loader.broken) == ([1.0], [])
    assert batch.arrays["placements"][0].tolist() == [1, 1, 0, 0]  # the upright photo fills its slot


def test_each_of_several_photos_of_a_sample_has_the_record_beside_it(tmp_path: Path) -> None:
    members = [
        ("k.left.jpg", photo(1)), ("k.left.json", b'{"license": "CC0-1.0"}'), ("k.left.txt", b"on the left"),
        ("k.right.jpg", photo(2)), ("k.json", b'{"LICENSE": "CC-BY-4.0"}'),
        ("n.000.jpg", photo(3)), ("n.000.json", b'{"photo_id": "12", "license": "MIT"}'),
        ("p.LEFT.JPG", photo(4)), ("p.LEFT.JSON", b'{"license": "ISC"}'),
    ]  # fmt: skip
    write_tar(tmp_path / "x.tar", members)
    build_index(str(tmp_path))
    assert licences_of(tmp_path) == {"CC0-1.0": 1, "CC-BY-4.0": 1, "MIT": 1, "ISC": 1}
    assert shards("export", tmp_path, "--to", "parquet", "--out", tmp_path / "out") == 0
    rows = pq.read_table(tmp_path / "out/data").to_pylist()
    assert [(row["licence"], row["caption"]) for row in rows] == [
        ("CC0-1.0", "on the left"), ("CC-BY-4.0", None), ("MIT", None), ("ISC", None)
    ]  # fmt: skip


def test_what_macos_and_the_writer_of_webdataset_make_is_read_whole(tmp_path: Path) -> None:
    members = [("a.jpg", photo(1)), ("._a.jpg", b"\0\5\26\7"), ("a.json", b"{}"), ("._a.json", b"\0\5\26\7")]
    write_tar(tmp_path / "0.tar", members)
    with webdataset.ShardWriter(str(tmp_path / "1-%06d.tar"), verbose=0) as writer:
        writer.write({"__key__": "dir/b", "jpg": photo(2), "json": {"license": "MIT"}, "cls": 3})
    build_index(str(tmp_path))
    data = DatasetFolder(str(tmp_path))
    assert [list(data.read(number).members) for number in range(2)] == [
        ["jpg", "json"],
        ["cls", "jpg", "json"],
    ]
    assert licences_of(tmp_path) == {"MIT": 1, "not stated": 1}
    assert verify(str(tmp_path)).problems == []


def test_ranks_and_a_mixture_read_every_photo_of_foreign_datasets_once(folder: Path, tmp_path: Path) -> None:
    other = write_img2dataset(tmp_path / "other", photos=4, ending="JPG")
    build_index(str(other))
    sources = [DatasetFolder(str(path)) for path in (folder, other)]
    mixture = Mixture(sources, [3, 2], samples=10)
    read: list[str] = []
    for rank in range(2):
        loader = Loader(
            mixture, PhotoBatches(24, 24, photo="", masks=False), 1, rank=rank, world=2, threads=1
        )
        for batch in loader:
            read += batch.arrays["keys"]
        assert loader.broken == []
    assert sorted(read) == sorted(f"{number:09d}" for count in (6, 4) for number in range(count))
