"""A collection is what its path names: no name is taken for a pattern, no linked folder is passed over."""

import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.units import list_units, pattern_lines, unit_rows
from curation.storage import exists, remove, write_bytes
from persona import main
from tests.drawn_pipeline import settings, write_config


def listed(path: str | Path, kind: str = "folder", **source: Any) -> dict[str, str | None]:
    """{source_key: why it is failed, or None}."""
    wanted = SourceSettings(kind=kind, path=str(path), **source)  # type: ignore[arg-type]
    rows = [row for unit in list_units(wanted) for row in unit_rows(unit, wanted)]
    found = {row.source_key: row.source_error for row in rows}
    assert len(found) == len(rows)
    return found


def put(folder: str | Path, *names: str) -> None:
    for name in names:
        write_bytes(f"{folder}/{name}", name.encode())


NAMES = ["photos [2024]", "photos*", "what?", "a::b", "x#y", "[!a]", "[", "{a,b}", "~", "**"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_exists_is_taken_by_its_name(name: str, tmp_path: Path) -> None:
    put(tmp_path / name, "mine.jpg")
    for other in ("photos 2", "photosX", "whatX", "b", "zz"):
        put(tmp_path / other, "strangers.jpg")
    assert listed(tmp_path / name) == {f"{name}/mine.jpg": None}
    assert listed(tmp_path / name / "*.jpg") == {"mine.jpg": None}
    put(tmp_path / name, "a.tar")
    assert [
        unit.uri for unit in list_units(SourceSettings(kind="webdataset", path=str(tmp_path / name)))
    ] == [str(tmp_path / name / "a.tar")]


@pytest.mark.parametrize("name", ["photos [2024]", "photos*", "what?"])
def test_a_folder_of_a_store_that_exists_is_taken_by_its_name(name: str, s3: str) -> None:
    put(f"{s3}/paths/{name}", "mine.jpg", "deep/mine [1].jpg")
    for other in ("photos 2", "photosX", "whatX"):
        put(f"{s3}/paths/{other}", "strangers.jpg")
    assert listed(f"{s3}/paths/{name}") == {f"{name}/mine.jpg": None, f"{name}/deep/mine [1].jpg": None}
    source = SourceSettings(path=f"{s3}/paths/{name}")
    rows = [vars(row) for unit in list_units(source) for row in unit_rows(unit, source)]
    assert [PhotoBytes(source).read(row) for row in rows] == [b"deep/mine [1].jpg", b"mine.jpg"]


def test_what_does_not_exist_is_a_pattern_and_is_told_as_one(tmp_path: Path) -> None:
    put(tmp_path / "photos 2", "strangers.jpg")
    put(tmp_path / "photos 3", "deep/strangers.jpg")
    source = SourceSettings(path=str(tmp_path / "photos [2024]"))
    assert [unit.label for unit in list_units(source)] == ["photos 2"]
    says = f"source.path: {tmp_path}/photos [2024] is a pattern; it stands for {tmp_path}/photos 2"
    assert pattern_lines(source) == [says]
    assert pattern_lines(SourceSettings(path=str(tmp_path / "photos 2"))) == []
    both = {"photos 2/strangers.jpg": None, "photos 3/deep/strangers.jpg": None}
    assert listed(tmp_path / "photos *") == listed(f"{tmp_path}/*[23]") == both
    assert len(listed(tmp_path / "**")) == len(listed(f"{tmp_path}/**/*.jpg")) == 2
    with pytest.raises(ConfigError, match="no such folder or file, and nothing that it matches"):
        list_units(SourceSettings(path=str(tmp_path / "photos [7]")))


def test_rows_of_a_table_reach_no_neighbour_of_a_folder_with_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "table [1]"
    put(folder, "mine.jpg")
    put(tmp_path, "strangers.jpg")
    pq.write_table(pa.table({"uri": ["mine.jpg", str(tmp_path / "strangers.jpg")]}), folder / "a.parquet")
    source = SourceSettings(kind="parquet", path=str(folder))
    mine, other = [vars(row) for unit in list_units(source) for row in unit_rows(unit, source)]
    assert PhotoBytes(source).read(mine) == b"mine.jpg"
    with pytest.raises(ValueError, match="outside the collection"):
        PhotoBytes(source).read(other)


def test_a_name_with_brackets_is_removed_from_a_store_and_no_other(s3: str) -> None:
    for folder in ("run [1]", "run 1"):
        put(f"{s3}/removal/{folder}", "a [1].parquet", "a 1.parquet")
    remove(f"{s3}/removal/run [1]/a [1].parquet")
    fs, path = fsspec.core.url_to_fs(f"{s3}/removal")
    left = [f"{path}/run 1/a 1.parquet", f"{path}/run 1/a [1].parquet", f"{path}/run [1]/a 1.parquet"]
    assert sorted(fs.find(path)) == left
    remove(f"{s3}/removal/run [1]", recursive=True)
    assert sorted(fs.find(path)) == left[:2]
    assert not exists(f"{s3}/removal/run [1]")


# --- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [("foo://bucket/x", "foo"), ("S3://bucket/x", "S3"), ("github://host/x", "org"), ("://x", "://x")],
)
def test_a_url_of_no_store_that_can_be_read_is_one_line(
    url: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("folder", "auto"):
        config = write_config(tmp_path / "pipelines.yaml", settings(url, kind=kind))
        words = ["curate", "drawn", "--config", str(config), "--out", str(tmp_path / "run")]
        assert main([*words, "--engine", "inline"]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert f"{url}: " in said
        assert says in said
    assert main(["collection", url]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_linked_folders_are_followed_and_each_photo_is_listed_once(tmp_path: Path) -> None:
    put(tmp_path / "c", "real/a.jpg")
    put(tmp_path / "elsewhere", "b.jpg", "deep/c.jpg")
    (tmp_path / "c" / "aaa").symlink_to("real")  # before it by name: the photo keeps its own place
    (tmp_path / "c" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "c" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "home").symlink_to(tmp_path / "c")
    assert listed(tmp_path / "c") == {"c/real/a.jpg": None, "c/again/c.jpg": None, "c/linked/b.jpg": None}
    (tmp_path / "by-link").symlink_to("c")
    assert len(listed(tmp_path / "by-link")) == 3


def test_what_lies_behind_a_link_changes_the_version_of_its_folder(tmp_path: Path) -> None:
    put(tmp_path / "c", "a.jpg")
    put(tmp_path / "elsewhere", "b.jpg")
    (tmp_path / "c" / "linked").symlink_to(tmp_path / "elsewhere")
    versions = {list_units(SourceSettings(path=str(tmp_path / "c")))[0].version}
    put(tmp_path / "elsewhere", "c.jpg")
    versions.add(list_units(SourceSettings(path=str(tmp_path / "c")))[0].version)
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"another")
    versions.add(list_units(SourceSettings(path=str(tmp_path / "c")))[0].version)
    assert len(versions) == 3


def test_what_cannot_be_followed_is_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "c"
    put(folder, "a.jpg", "closed/b.jpg", "d.jpg", "e.jpg")
    os.mkfifo(folder / "e.json")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "unmounted").symlink_to("/nowhere/photos")
    (folder / ".#lock").symlink_to("me@host")
    (folder / "up").symlink_to("..")
    (folder / "d.json").symlink_to("nowhere.json")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = listed(folder)
    assert found == {
        "c/d.jpg": "its .json cannot be read: a link to 'nowhere.json': No such file or directory",
        "c/e.jpg": "its .json cannot be read: not a regular file",
        "c/a.jpg": None,
        "c/closed": "the folder cannot be listed: Permission denied",
        "c/gone.jpg": "a link to 'nowhere.jpg': No such file or directory",
        "c/unmounted": "a link to '/nowhere/photos': No such file or directory",
        "c/up": f"a link to '{tmp_path}', in which the collection lies: not followed",
    }


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_tars_and_tables_behind_links_are_units_and_what_cannot_be_read_is_a_row(
    kind: str, tmp_path: Path
) -> None:
    ending = {"webdataset": "tar", "parquet": "parquet"}[kind]
    put(tmp_path / "elsewhere", f"x.{ending}", f"Y.{ending.upper()}", "readme.md")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "c" / f"one.{ending}").symlink_to(tmp_path / "elsewhere" / f"x.{ending}")
    (tmp_path / "c" / "unmounted").symlink_to("/nowhere/tars")
    source = SourceSettings(kind=kind, path=str(tmp_path / "c"))  # type: ignore[arg-type]
    units = {unit.label: unit for unit in list_units(source)}
    assert set(units) == {f"x.{ending}", f"Y.{ending.upper()}", f"one.{ending}", "unmounted"}
    assert "No such file" in str(next(iter(unit_rows(units["unmounted"], source))).source_error)
    before = units[f"one.{ending}"].version
    put(tmp_path / "elsewhere", f"x.{ending}")
    assert {unit.label: unit for unit in list_units(source)}[f"one.{ending}"].version != before
