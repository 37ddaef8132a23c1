"""`verify` names exactly what is broken: file, member, byte, what was expected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persona import main
from shards.tools.dataset_rows import DatasetRows
from shards.tools.verify import verify
from tests.drawn_shards import drawn_groups, write_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 groups of two photos in shards of 8."""
    return write_dataset(tmp_path / "data", drawn_groups(30))


def _problems(folder: Path, fast: bool = False) -> list[str]:
    return [str(problem) for problem in verify(str(folder), fast=fast).problems]


def _flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("fast", [False, True])
def test_a_dataset_as_it_was_written_passes(folder: Path, fast: bool) -> None:
    report = verify(str(folder), fast=fast)
    assert report.problems == []
    assert report.shards == 4
    assert report.members == (0 if fast else 30 * 7)
    assert report.bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))


def test_several_processes_find_the_same(folder: Path) -> None:
    _flip(folder / "000002.tar", 512 + 5)
    assert verify(str(folder), processes=2) == verify(str(folder))


def test_a_flipped_bit_of_a_member_is_named_by_its_place(folder: Path) -> None:
    row = DatasetRows(str(folder)).row(11)
    place = row["members"][1]
    _flip(folder / "000001.tar", place["offset"] + 9)
    found = _problems(folder)
    assert len(found) == 2
    assert found[0].startswith("000001.tar: has the checksum ")
    assert found[1].startswith(f"000001.tar: byte {place['offset']}: {row['key']}.000.jpg: its ")
    assert place["checksum"].hex() in found[1]
    assert _problems(folder, fast=True) == found[:1]


def test_a_flipped_bit_of_a_header_is_named_and_the_members_behind_it_are_still_checked(folder: Path) -> None:
    row = DatasetRows(str(folder)).row(11)
    one, other = row["members"][1], row["members"][3]
    _flip(folder / "000001.tar", one["offset"] - 512 + 3)
    _flip(folder / "000001.tar", other["offset"])
    found = _problems(folder)
    assert f"000001.tar: byte {one['offset'] - 512}: {row['key']}.000.jpg: header: no tar header" in found[1]
    assert found[2].startswith(f"000001.tar: byte {other['offset']}: {row['key']}.000.json: its ")
    assert len(found) == 3


def test_a_flipped_bit_of_padding_or_of_the_end_is_named(folder: Path) -> None:
    row = DatasetRows(str(folder)).row(0)
    place = row["members"][0]
    _flip(folder / "000000.tar", place["offset"] + place["length"] + 7)
    size = (folder / "000003.tar").stat().st_size
    _flip(folder / "000003.tar", size - 4)
    found = _problems(folder)
    there = place["offset"] + place["length"] + 7
    assert f"000000.tar: byte {there}: {row['key']}.json: padding behind it is not zero" in found
    assert f"000003.tar: byte {size - 4}: bytes behind the end of the tar" in found


@pytest.mark.parametrize("part", range(40))
def test_any_flipped_bit_of_a_shard_is_found_at_its_place(folder: Path, part: int) -> None:
    file = folder / "000003.tar"
    size = file.stat().st_size
    offset = part * size // 40 + part
    _flip(file, offset, 1 << part % 8)
    found = verify(str(folder)).problems
    assert all(problem.file == "000003.tar" for problem in found)
    named = [problem.offset for problem in found if problem.offset is not None]
    spans = [member["offset"] for row in DatasetRows(str(folder)).rows(24, 30) for member in row["members"]]
    nearest = max([start for start in (*spans, *(start - 512 for start in spans)) if start <= offset])
    assert len(found) == 2
    assert named[0] in (offset, nearest)


def test_a_shard_that_was_cut_is_named_with_what_is_lost(folder: Path) -> None:
    file = folder / "000001.tar"
    data = file.read_bytes()
    row = DatasetRows(str(folder)).row(14)
    place = row["members"][4]
    file.write_bytes(data[: place["offset"] + 10])
    found = _problems(folder)
    assert found[0] == f"000001.tar: has {place['offset'] + 10} bytes, dataset.json says {len(data)}"
    assert f"byte {place['offset']}: {row['key']}.001.jpg: the index has it from byte" in found[2]
    assert _problems(folder, fast=True) == found[:2]


def test_a_shard_that_is_gone_and_one_that_does_not_belong_are_named(folder: Path) -> None:
    (folder / "000002.tar").rename(folder / "000009.tar")
    assert _problems(folder) == ["000002.tar: is missing", "000009.tar: is no file of this dataset"]


def test_what_a_killed_change_left_is_named_as_that_and_cleared_by_the_command_that_it_names(
    folder: Path,
) -> None:
    for name in ("000001-r1.tar", ".index-r1.arrow.0a1b2c3d.tmp", "000001-r2.tar"):
        (folder / name).write_bytes(b"half")
    ends_it = "run the same command (persona shards forget, or strip) again to end it"
    assert _problems(folder) == [
        f".index-r1.arrow.0a1b2c3d.tmp: is left of a change that was killed: {ends_it}",
        f"000001-r1.tar: is left of a change that was killed: {ends_it}",
        "000001-r2.tar: is no file of this dataset",
    ]
    assert main(["shards", "forget", str(folder)]) == 0
    assert _problems(folder) == ["000001-r2.tar: is no file of this dataset"]


def test_two_shards_that_were_swapped_are_named(folder: Path) -> None:
    (folder / "000001.tar").rename(folder / "x")
    (folder / "000002.tar").rename(folder / "000001.tar")
    (folder / "x").rename(folder / "000002.tar")
    assert _problems(folder) == [
        "000001.tar: holds what 000002.tar should hold: the two were swapped or copied",
        "000002.tar: holds what 000001.tar should hold: the two were swapped or copied",
    ]


def test_a_member_that_was_added_is_named(folder: Path, tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "extra.jpg").write_bytes(b"x" * 100)
    end = max(row["offset"] + row["length"] for row in DatasetRows(str(folder)).rows(24, 30))
    tar = str(folder / "000003.tar")
    subprocess.run(["tar", "-rf", tar, "-C", str(tmp_path), "extra.jpg"], check=True)
    assert f"000003.tar: byte {end}: extra.jpg: a member that the index does not have" in _problems(folder)


def _edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_any_edit_of_dataset_json_is_named(folder: Path) -> None:
    _edit(folder / "dataset.json", lambda about: about.update(pipeline="another"))
    found = _problems(folder)
    assert len(found) == 1
    assert found[0].startswith("dataset.json: was edited: its checksum is ")
    _edit(folder / "dataset.json", lambda about: about.update(groups=31))
    assert "dataset.json: groups is 31, its shards add up to 30" in _problems(folder)
    _edit(folder / "dataset.json", lambda about: about.pop("shards"))
    assert _problems(folder) == ["dataset.json: lacks 'shards'"]
    (folder / "dataset.json").write_text("{")
    assert _problems(folder)[0].startswith("dataset.json: Expecting")
    (folder / "dataset.json").unlink()
    assert _problems(folder) == ["dataset.json: is missing: not a dataset, or one that is being written"]


def test_an_edited_index_is_named_by_row_and_column(folder: Path) -> None:
    from shards.format.index import IndexWriter

    table = DatasetRows(str(folder)).table
    rows = table.to_pylist()
    rows[5]["members"][2]["length"] -= 1
    parquet = (folder / "index.parquet").read_bytes()
    with IndexWriter(str(folder)) as index:
        index.write(type(table).from_pylist(rows, schema=table.schema))
        index.close()
    (folder / "index.parquet").write_bytes(parquet)
    found = _problems(folder)
    assert found[0].startswith("index.arrow: has the checksum ")
    assert found[1].startswith(f"index.arrow: row 5 ({rows[5]['key']}): members is ")
    assert len(found) == 2  # the shards are compared with index.parquet, which is right
    with IndexWriter(str(folder)) as index:
        index.write(type(table).from_pylist(rows, schema=table.schema))
        index.close()
    found = _problems(folder)
    assert "000000.tar: the shard is what was written; so it is the index that is wrong:" in found
    assert any(f"{rows[5]['key']}.000.regions.png: its header names" in line for line in found)


@pytest.mark.parametrize("name", ["index.arrow", "index.parquet"])
def test_an_index_that_is_cut_is_named_and_the_other_one_serves(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:-50])
    found = _problems(folder)
    assert found
    assert all(line.startswith(f"{name}: ") for line in found)


def test_a_dataset_on_an_object_store_is_checked_there(folder: Path, s3: str) -> None:
    import fsspec

    system, root = fsspec.core.url_to_fs(f"{s3}/verified")
    _flip(folder / "000003.tar", 512 + 5)
    for path in folder.iterdir():
        system.pipe_file(f"{root}/{path.name}", path.read_bytes())
    assert verify(f"{s3}/verified").problems == verify(str(folder)).problems
    assert len(verify(f"{s3}/verified").problems) == 2
