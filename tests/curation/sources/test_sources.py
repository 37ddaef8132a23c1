"""Sources: folders, img2dataset tars and Parquet, local and on S3, give the same photos."""

import io
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.units import list_units, unit_rows
from tests.drawn_people import Drawn, collection, write_folder, write_tars
from tests.drawn_pipeline import curate, files_of, photos_with_people, rows_of, settings, write_config


def rows(**source: Any) -> list[dict[str, Any]]:
    """Every row of a source, with the bytes that it refers to under `data`."""
    wanted = SourceSettings(**source)
    reader = PhotoBytes(wanted)
    found = []
    for unit in list_units(wanted):
        for row in unit_rows(unit, wanted):
            record = vars(row)
            found.append({**record, "data": reader.read(record)})
    return found


def upload(folder: Path, url: str) -> str:
    fs, path = fsspec.core.url_to_fs(url)
    fs.put(str(folder) + "/", path, recursive=True)
    return url


@pytest.fixture(scope="module")
def few() -> list[Drawn]:
    return collection(21, people=2)


def test_img2dataset_tars_keep_keys_captions_and_metadata(few: list[Drawn], tmp_path: Path) -> None:
    found = rows(kind="webdataset", path=str(write_tars(tmp_path, few, per_tar=5)))
    assert [row["data"] for row in found] == [photo.jpeg for photo in few]
    assert found[7]["source_key"] == "00001.tar/000000007.jpg"
    assert found[7]["caption"] == "photo 7"
    assert found[7]["source_url"] == "https://photos.invalid/7"
    assert found[7]["licence"] == "CC-BY-4.0"
    assert json.loads(found[7]["metadata"])["license"] == "CC-BY-4.0"


def test_a_folder_carries_columns_of_the_json_and_text_beside_a_photo(
    few: list[Drawn], tmp_path: Path
) -> None:
    write_folder(tmp_path / "anna", few[:1])
    (tmp_path / "anna" / "photo-00000.json").write_text(json.dumps({"author": "A", "consent": True}))
    (tmp_path / "anna" / "photo-00000.txt").write_text("at the sea\n")
    row = rows(path=str(tmp_path), subject_hint="folder", collection="summer")[0]
    assert (row["author"], row["consent"], row["caption"]) == ("A", "True", "at the sea")
    assert (row["subject_hint"], row["collection"]) == ("anna", "summer")


def test_columns_of_a_record_are_understood_in_any_case_of_letters(few: list[Drawn], tmp_path: Path) -> None:
    """img2dataset keeps what its list called them; a name that is spelt exactly so goes first."""
    photos = write_folder(tmp_path / "photos", few[:1])
    record = {"LICENSE": "CC0-1.0", "URL": "https://example.org/a.jpg", "Author": "A", "author": "B"}
    (photos / few[0].name).with_suffix(".json").write_text(json.dumps(record))
    (row,) = rows(path=str(photos))
    assert (row["licence"], row["source_url"], row["author"]) == ("CC0-1.0", record["URL"], "B")


def test_two_folders_of_one_name_keep_their_photos_apart(few: list[Drawn], tmp_path: Path) -> None:
    for place in ("one/photos", "two/photos"):
        write_folder(tmp_path / place, few[:2])
    found = rows(path=[str(tmp_path / "one" / "photos"), str(tmp_path / "two" / "photos")])
    assert len({row["source_key"] for row in found}) == len(found) == 4


@pytest.mark.parametrize("shape", ["bytes", "hugging-face", "uri"])
def test_parquet_gives_photos_as_bytes_as_structs_and_as_paths(
    shape: str, few: list[Drawn], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "photos", few)
    table: dict[str, Any] = {"key": [photo.name for photo in few], "licence": ["CC0"] * len(few)}
    if shape == "bytes":
        table["image"] = [photo.jpeg for photo in few]
    elif shape == "hugging-face":
        table["image"] = [{"bytes": photo.jpeg, "path": photo.name} for photo in few]
    else:
        table["uri"] = [f"photos/{photo.name}" for photo in few]
    pq.write_table(pa.table(table), tmp_path / "photos.parquet", row_group_size=5)
    found = rows(kind="parquet", path=str(tmp_path / "photos.parquet"))
    assert [row["data"] for row in found] == [photo.jpeg for photo in few]
    assert {row["licence"] for row in found} == {"CC0"}
    assert folder.exists()


def test_web_addresses_are_not_read_unless_the_pipeline_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["http://127.0.0.1:9/a.jpg"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="allow_urls"):
        rows(kind="parquet", path=str(tmp_path / "a.parquet"))


def test_a_source_without_photos_is_a_config_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        list_units(SourceSettings(kind="webdataset", path=str(tmp_path)))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="no such folder"):
        list_units(SourceSettings(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_a_collection_on_s3_gives_the_rows_of_the_local_one(
    kind: str, few: list[Drawn], s3: str, tmp_path: Path
) -> None:
    if kind == "folder":
        write_folder(tmp_path / "c", few)
    elif kind == "webdataset":
        write_tars(tmp_path / "c", few, per_tar=5)
    else:
        (tmp_path / "c").mkdir()
        table = pa.table({"image": [photo.jpeg for photo in few]})
        pq.write_table(table, tmp_path / "c" / "a.parquet", row_group_size=4)
    url = upload(tmp_path / "c", f"{s3}/{kind}/c")
    place = {"uri", "version"}
    local = rows(kind=kind, path=str(tmp_path / "c"))
    remote = rows(kind=kind, path=url)
    assert len(local) == len(few)
    assert [{k: v for k, v in row.items() if k not in place} for row in remote] == [
        {k: v for k, v in row.items() if k not in place} for row in local
    ]


def test_a_run_from_s3_to_s3_resumes_and_gives_the_shards_of_a_local_one(s3: str, tmp_path: Path) -> None:
    drawn = collection(22, people=6)
    tars = write_tars(tmp_path / "tars", drawn, per_tar=12)
    url = upload(tars, f"{s3}/run-in/tars")
    local = write_config(tmp_path / "local.yaml", settings(tars, kind="webdataset"))
    curate(local, tmp_path / "run")
    remote = write_config(tmp_path / "remote.yaml", settings(url, kind="webdataset"))
    out = f"{s3}/run-out/run"
    first = curate(remote, out)  # type: ignore[arg-type]
    again = curate(remote, out)  # type: ignore[arg-type]
    assert again["model_calls_this_time"] == {}
    assert first["groups"] > 0
    fs, path = fsspec.core.url_to_fs(f"{out}/shards")
    uploaded = {name.rsplit("/", 1)[1]: fs.cat_file(name) for name in fs.find(path)}
    assert uploaded == files_of(tmp_path / "run" / "shards")


def test_rows_of_the_barriers_name_the_file_that_they_come_from(few: list[Drawn], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", few)
    curate(write_config(tmp_path / "p.yaml", settings(folder)), tmp_path / "run")
    names = {photo.name for photo in few}
    assert set(photos_with_people(tmp_path / "run")) == names
    assert {row["file_name"] for row in rows_of(tmp_path / "run" / "identities", ["file_name"])} == names


def test_listing_reads_no_photo_bytes_of_a_parquet_file(few: list[Drawn], tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": [photo.jpeg for photo in few]}), sink)
    (tmp_path / "a.parquet").write_bytes(sink.getvalue())
    source = SourceSettings(kind="parquet", path=str(tmp_path / "a.parquet"))
    listed = [vars(row) for unit in list_units(source) for row in unit_rows(unit, source)]
    assert len(listed) == len(few)
    assert not any(isinstance(value, bytes) for row in listed for value in row.values())
