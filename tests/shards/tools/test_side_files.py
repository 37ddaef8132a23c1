"""What other programs wrote beside the shards is named by forget and verify once it tells of what is gone."""

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest

import persona
from shards.tools.build_index import build_index
from shards.tools.side_files import remove_side_files
from tests.drawn_foreign import write_img2dataset, write_side_files
from tests.drawn_shards import drawn_groups, write_dataset

KEY = "000000000"  # of img2dataset's first shard


def shards(*words: Any) -> int:
    return persona.main(["shards", *map(str, words)])


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two shards of img2dataset with its Parquet and statistics, and what three other programs wrote."""
    folder = write_img2dataset(tmp_path / "img2dataset")
    write_side_files(folder)
    build_index(str(folder))
    return folder


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


def named(line: str) -> list[str]:
    """The files that the last line names."""
    return line.partition(": files of other programs")[0].split(", ")


def test_forget_and_verify_name_what_still_tells_of_the_forgotten(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shards("verify", foreign) == 0
    capsys.readouterr()
    stale = [
        ".nv-meta", "00000.idx", "00000.parquet", "00000.tar.idx", "00000_stats.json", "people.json"
    ]  # fmt: skip
    assert shards("forget", foreign, "--key", KEY) == 1
    assert named(last_line(capsys)) == stale
    assert shards("verify", foreign) == 1
    assert named(last_line(capsys)) == stale
    assert shards("verify", foreign, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["stale_side_files"], found["problems"], found["ok"]) == (stale, [], False)


def test_they_are_deleted_where_that_is_asked_for_and_those_of_other_shards_stay(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shards("forget", foreign, "--key", KEY, "--delete-side-files") == 0
    assert shards("verify", foreign) == 0
    left = {path.name for path in foreign.iterdir()}
    assert {"00001.tar.idx", "00001.idx", "00001.parquet", "00001_stats.json"} <= left
    assert not {"00000.tar.idx", "00000.parquet", ".nv-meta", "people.json"} & left
    assert not [path.name for path in foreign.iterdir() if b"https://example.org/0.jpg" in path.read_bytes()]


def test_a_shard_that_is_gone_as_a_whole_is_known_by_the_names_of_the_others(foreign: Path) -> None:
    assert shards("forget", foreign, "--key", KEY, "000000001", "000000002", "--delete-side-files") == 0
    assert not list(foreign.glob("00000*"))


def test_beside_our_own_shards_they_are_no_damage_until_they_are_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(9))
    names = write_side_files(folder)
    assert shards("verify", folder) == 0
    (folder / "notes.json").write_text("{}")
    assert shards("verify", folder) == 1  # that is nobody's
    (folder / "notes.json").unlink()
    assert shards("forget", folder, "--identity", "0" * 16) == 1
    assert named(last_line(capsys)) == [name for name in names if not name.startswith("000001")]
    for name in names:  # made anew
        shutil.rmtree(folder / name) if name == ".nv-meta" else (folder / name).unlink()
    write_side_files(folder)
    assert shards("verify", folder) == 0


def test_names_with_brackets_in_a_store_are_names_and_no_patterns() -> None:
    store = fsspec.filesystem("memory")
    for folder in ("side [1]", "side 1"):
        for name in ("000000.tar.idx", ".nv-meta/.info.json"):
            store.pipe(f"/{folder}/{name}", b"")
    remove_side_files("memory://side [1]", ["000000.tar.idx", ".nv-meta"])
    assert [path for path in store.store if path.startswith("/side")] == [
        "/side 1/000000.tar.idx", "/side 1/.nv-meta/.info.json"
    ]  # fmt: skip
