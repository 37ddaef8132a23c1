"""Records of many photos in one file, as Hugging Face's ImageFolder has them, are those of their photos."""

import csv
import io
import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.settings.source import SourceSettings
from curation.sources.image_folder import MetadataFile, MetadataIndex
from curation.sources.units import kind_at, list_units, unit_rows
from curation.storage import write_bytes
from tests.curation.photos.test_ingest_wishes import curate, endings
from tests.curation.sources.test_sources_records import listed, photo, told, write
from tests.drawn_people import collection as drawn_photos
from tests.drawn_pipeline import settings
from tests.drawn_tars import tar_of

KINDS = pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
Row = dict[str, Any]


def row(name: str, number: int | str = 0) -> Row:
    return {"file_name": name, "url": f"https://photos.invalid/{number}", "license": f"L{number}"}


def metadata(kind: str, rows: Sequence[Row]) -> bytes:
    if kind == "jsonl":
        return b"".join(json.dumps(one).encode() + b"\n" for one in rows)
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), sink)
        return sink.getvalue()
    text = io.StringIO()
    lines = csv.DictWriter(text, list(rows[0]))
    lines.writeheader()
    lines.writerows(rows)
    return text.getvalue().encode()


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "c" / name).write_bytes(data)
    return folder / "c"


def photos(*names: str) -> dict[str, bytes]:
    return {name: photo(name) for name in names}


def test_an_address_in_a_file_of_many_records_opts_out(tmp_path: Path) -> None:
    drawn = [one.jpeg for one in drawn_photos(5, people=2)]
    files: dict[str, bytes] = {}
    wishes, wanted = "", dict[str, str]()
    for place, kind in enumerate(["csv", "jsonl", "parquet"]):
        names = [f"{kind}{n}.jpg" for n in range(3)]
        files |= {f"{kind}/{name}": drawn[3 * place + n] for n, name in enumerate(names)}
        files[f"{kind}/metadata.{kind}"] = metadata(kind, [row(name, name) for name in names])
        wishes += f"url:https://photos.invalid/{names[1]}\n"
        wanted |= dict(zip(names, ["", "opted_out", "licence"], strict=True))
    (tmp_path / "opt-out.txt").write_text(wishes)
    pipeline = settings(lay(tmp_path, files))
    allowed = [f"L{name}" for name in wanted if not name.endswith("2.jpg")]
    pipeline["photos"]["screen"] |= {"opt_out": str(tmp_path / "opt-out.txt"), "licences": allowed}
    assert endings(curate(tmp_path, pipeline), "photos") == wanted


@KINDS
def test_a_row_is_the_record_of_the_photo_that_it_names_from_the_folder_of_its_file(
    kind: str, tmp_path: Path
) -> None:
    above = metadata(kind, [row("train/cat/0.jpg", 0), row("./train/dog/0.jpg", 1)])
    below = metadata(kind, [row("é 0.jpg", 2)])
    names = ["train/cat/0.jpg", "train/dog/0.jpg", "test/é 0.jpg"]
    folder = lay(tmp_path, {**photos(*names), f"metadata.{kind}": above, f"test/metadata.{kind}": below})
    rows = listed(folder, "folder")
    assert told(rows) == dict(zip(names, ["L0", "L1", "L2"], strict=True))
    assert rows["test/é 0.jpg"].source_url == "https://photos.invalid/2"
    assert json.loads(rows["test/é 0.jpg"].metadata or "")["license"] == "L2"


def test_several_files_of_one_row_share_its_record(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"file_names": ["a.jpg", "b.jpg"], "license": "L0"},
        {"left_file_name": "c.jpg", "right_file_name": "d.jpg", "license": "L1"},
        {"pair": {"mask_file_name": "e.jpg"}, "license": "L2"},
    ]
    folder = lay(
        tmp_path, {**photos(*(f"{n}.jpg" for n in "abcde")), "metadata.jsonl": metadata("jsonl", rows)}
    )
    assert list(told(listed(folder, "folder")).values()) == ["L0", "L0", "L1", "L1", "L2"]
    table = pa.table(
        {"x_file_names": [["a.jpg", "b.jpg"], ["c.jpg", "d.jpg", "e.jpg"]], "license": ["L0", "L1"]}
    )
    pq.write_table(table, folder / "metadata.parquet")
    (folder / "metadata.jsonl").unlink()
    assert list(told(listed(folder, "folder")).values()) == ["L0", "L0", "L1", "L1", "L1"]


def test_what_lies_beside_a_photo_goes_before_its_row_and_the_row_fills_what_that_lacks(
    tmp_path: Path,
) -> None:
    rows = [row("a.jpg") | {"caption": "of the row", "author": "Ann"}, row("b.jpg", 1) | {"caption": "row"}]
    beside = {"a.json": b'{"author": "Bo", "caption": "own", "licence": "L0"}', "b.txt": b"own words"}
    folder = lay(tmp_path, {**photos("a.jpg", "b.jpg"), **beside, "metadata.jsonl": metadata("jsonl", rows)})
    found = listed(folder, "folder")
    assert told(found) == {"a.jpg": "L0", "b.jpg": "L1"}
    assert [one.caption for one in found.values()] == ["own", "own words"]
    assert (found["a.jpg"].author, found["a.jpg"].source_url) == ("Bo", "https://photos.invalid/0")


def test_records_that_differ_in_what_is_wished_let_nobody_in_and_captions_may_differ(tmp_path: Path) -> None:
    rows = [
        row("a.jpg", 0),
        row("a.jpg", 0) | {"caption": "another"},
        row("b.jpg", 0),
        row("b.jpg", 1),
        row("c.jpg"),
    ]
    beside = {"c.json": b'{"source_url": "https://elsewhere.invalid/c"}'}
    folder = lay(
        tmp_path, {**photos("a.jpg", "b.jpg", "c.jpg"), **beside, "metadata.jsonl": metadata("jsonl", rows)}
    )
    assert told(listed(folder, "folder")) == {
        "a.jpg": "L0",
        "b.jpg": "2 records claim it, and differ in source_url, licence",
        "c.jpg": "2 records claim it, and differ in source_url",
    }


@KINDS
def test_a_photo_beside_a_metadata_file_without_a_row_of_it_is_failed_unless_it_has_its_own_record(
    kind: str, tmp_path: Path
) -> None:
    beside = {"b.json": b'{"license": "own"}', f"metadata.{kind}": metadata(kind, [row("A.jpg", 0)])}
    folder = lay(tmp_path, {**photos("A.jpg", "a.JPG", "b.jpg"), **beside})
    assert told(listed(folder, "folder")) == {
        "A.jpg": "L0",
        "a.JPG": f"its record cannot be told: 'metadata.{kind}' has no row of it",
        "b.jpg": "own",
    }


def test_a_row_whose_file_is_not_there_is_no_photo_and_makes_suspect_what_is_called_so_elsewhere(
    tmp_path: Path,
) -> None:
    rows = [row("x/0.jpg", 0), row("x/1.jpg", 1), row("../lost/3.jpg", 2)]
    files = photos("meta/x/0.jpg", "images/1.jpg", "images/2.jpg", "lost/3.jpg")
    folder = lay(tmp_path, {**files, "meta/metadata.jsonl": metadata("jsonl", rows)})
    missed = "its record cannot be told: 'metadata.jsonl' names such a file where there is none"
    assert told(listed(folder, "folder")) == {
        "images/1.jpg": missed,
        "images/2.jpg": None,
        "lost/3.jpg": "L2",
        "meta/x/0.jpg": "L0",
    }


BROKEN = {
    "metadata.csv": [
        (b"file_name,url\na.jpg,x\nb.jpg", "line 3 has 1 fields, its header 2"),
        (b"file_name,caption,license\na.jpg,a cat, black,L0\n", "line 2 has 4 fields, its header 3"),
        (b'file_name,url\na.jpg,"x\n', "unexpected end of data"),
        (b"file_name;url\na.jpg;x\n", "none of its rows has a file_name"),
        (b"file_name,url,url\na.jpg,x,y\n", "it has the column 'url' twice"),
        ("file_name,url\na.jpg,x\n".encode("utf-16"), "'utf-8' codec can't decode byte 0xff"),
    ],
    "metadata.jsonl": [
        (b'{"file_name": "a.jpg"}\n{"file_name": "b.j', "line 2: Unterminated string"),
        (b'["a.jpg"]\n', "line 1: it holds no object but list"),
        (b'{"file_name": "a.jpg", "url": "x", "url": "y"}\n', "line 1: it has 'url' twice"),
        (b'{"file": "a.jpg"}\n', "none of its rows has a file_name"),
        (b'{"a": "' + bytes([97]) * 2**20 + b'"}', "line 1 has more than 1048576 bytes"),
    ],
    "metadata.parquet": [(b"PAR1 cut", "Parquet")],
}


@pytest.mark.parametrize(
    ("name", "data", "why"), [(n, *case) for n, cases in BROKEN.items() for case in cases]
)
def test_a_metadata_file_that_is_not_whole_fails_the_photos_of_its_folder_by_name(
    name: str, data: bytes, why: str, tmp_path: Path
) -> None:
    files = {
        **photos("x/a.jpg", "x/below/b.jpg", "y/c.jpg"),
        "x/a.json": b'{"license": "L0"}',
        f"x/{name}": data,
    }
    found = told(listed(lay(tmp_path, files), "folder"))
    assert found.pop("y/c.jpg") is None
    for said in found.values():
        assert said is not None
        assert said.startswith(f"its record cannot be told: '{name}' is broken: ")
        assert why in said


def test_what_spreadsheets_and_other_systems_write_is_read(tmp_path: Path) -> None:
    text = '\ufefffile_name,url,license\r\n"sub\\a.jpg","https://photos.invalid/0?a,b","L\r\n0"\r\n\r\nb.jpg,,\r\n'
    folder = lay(tmp_path, {**photos("sub/a.jpg", "b.jpg"), "metadata.csv": text.encode()})
    found = listed(folder, "folder")
    assert told(found) == {"b.jpg": None, "sub/a.jpg": "L\r\n0"}
    assert found["sub/a.jpg"].source_url == "https://photos.invalid/0?a,b"


def test_other_json_of_such_a_dataset_harms_no_photo_that_has_a_row(tmp_path: Path) -> None:
    beside = {"dataset_infos.json": b'{"default": {}}', "metadata.csv": metadata("csv", [row("a.jpg")])}
    assert told(listed(lay(tmp_path, {**photos("a.jpg"), **beside}), "folder")) == {"a.jpg": "L0"}


def test_a_part_of_such_a_collection_named_alone_keeps_its_records(tmp_path: Path) -> None:
    rows = [row("train/0.jpg", 0), row("test/0.jpg", 1)]
    names = ["train/0.jpg", "train/1.jpg", "test/0.jpg", "other/0.jpg"]
    folder = lay(tmp_path, {**photos(*names), "metadata.csv": metadata("csv", rows)})
    lacks = "its record cannot be told: 'metadata.csv' has no row of it"
    assert told(listed(folder / "train", "folder")) == {"0.jpg": "L0", "1.jpg": lacks}
    assert told(listed(folder / "test" / "0.jpg", "folder")) == {"0.jpg": "L1"}
    # Above a collection lies what may be about anything.
    assert told(listed(folder / "other", "folder")) == {"0.jpg": None}
    (folder / "metadata.csv").write_text("id,name\n1,x\n")
    assert told(listed(folder / "other", "folder")) == {"0.jpg": None}
    (folder / "metadata.csv").write_text('file_name,url\n"other/0')
    assert "is broken" in (told(listed(folder / "other", "folder"))["0.jpg"] or "")


@pytest.mark.parametrize("where", ["", "train", "train/0.jpg"])
def test_the_version_of_a_collection_follows_its_metadata_files(where: str, tmp_path: Path) -> None:
    folder = lay(
        tmp_path, {**photos("train/0.jpg"), "metadata.csv": metadata("csv", [row("train/0.jpg", 0)])}
    )
    source = SourceSettings(path=str(folder / where))
    before = list_units(source)[0]
    (folder / "metadata.csv").write_bytes(metadata("csv", [row("train/0.jpg", 1)]))
    os.utime(folder / "metadata.csv", (1, 1))
    after = list_units(source)[0]
    assert before.version != after.version
    assert [one.licence for one in unit_rows(after, source)] == ["L1"]


def test_a_tar_of_such_a_folder_keeps_the_records(tmp_path: Path) -> None:
    members = [
        ("p/0.jpg", photo(0)),
        ("p/1.jpg", photo(1)),
        ("p/metadata.jsonl", metadata("jsonl", [row("0.jpg", 0)])),
    ]
    assert told(listed(write(tmp_path, tar_of(members)))) == {
        "p/0.jpg": "L0",
        "p/1.jpg": "its record cannot be told: 'metadata.jsonl' has no row of it",
    }


def test_such_a_folder_in_a_store_is_read_as_one_here(s3: str) -> None:
    rows = [row("x/0.jpg", 0), row("x/1.jpg", 1)]
    url = f"{s3}/imagefolder"
    for name, data in {**photos("x/0.jpg", "x/1.jpg"), "metadata.csv": metadata("csv", rows)}.items():
        write_bytes(f"{url}/{name}", data)
    for path in (url, f"{url}/x", f"{url}/x/1.jpg"):
        source = SourceSettings(path=path)
        found = [one for unit in list_units(source) for one in unit_rows(unit, source)]
        assert [one.licence for one in found] == (["L1"] if path.endswith(".jpg") else ["L0", "L1"])


def test_a_metadata_parquet_beside_photos_does_not_make_them_a_table(tmp_path: Path) -> None:
    table = metadata("parquet", [row("a.jpg")])
    folder = lay(tmp_path, {**photos("a.jpg"), "metadata.parquet": table})
    assert kind_at(str(folder)) == "folder"
    assert kind_at(str(folder / "metadata.parquet")) == "parquet"


def test_photos_beside_tars_are_no_kind_that_could_be_guessed(tmp_path: Path) -> None:
    folder = lay(tmp_path, {**photos("a.jpg", "b.jpg"), "more/00000.tar": b""})
    with pytest.raises(ConfigError, match=r"2 photos and 1 \.tar files.*--set source\.kind=folder or"):
        kind_at(str(folder))


def test_parquet_files_beside_tars_are_those_of_img2dataset(tmp_path: Path) -> None:
    folder = lay(tmp_path, {"00000.tar": b"", "00000.parquet": b"", "00000_stats.json": b"{}"})
    assert kind_at(str(folder)) == "webdataset"


@pytest.mark.parametrize(
    ("name", "kind", "would"),
    [
        ("00000.tar", "parquet", "webdataset"),
        ("a.jpg", "webdataset", "folder"),
        ("a.parquet", "webdataset", "parquet"),
    ],
)
def test_a_collection_of_another_kind_is_told_as_what_it_is(
    name: str, kind: str, would: str, tmp_path: Path
) -> None:
    folder = lay(tmp_path, {name: b""})
    with pytest.raises(ConfigError, match=f"--set source.kind={would} would read 1 "):
        list_units(SourceSettings.model_validate({"kind": kind, "path": str(folder)}))


def test_a_large_metadata_file_is_read_without_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    with path.open("wb") as file:
        for number in range(5_000):
            one = {"file_name": f"{number:08d}.jpg", "caption": "words " * 2000}
            file.write(json.dumps(one).encode() + b"\n")
    tracemalloc.start()
    try:
        index = MetadataIndex([MetadataFile(str(path), lambda: path.open("rb"))])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * 2**20 < path.stat().st_size
    assert [file for file, _ in index.rows_of(str(tmp_path / "00004999.jpg"))] == [str(path)]
