"""merge, split and reshard: the members as they were, an output that content alone decides, resumable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.format.dataset import DatasetError
from shards.format.members import identity_of
from shards.reading.folder import DatasetFolder
from shards.reading.revisions import Revisions
from shards.reading.steps import Position
from shards.tools.build_index import build_index
from shards.tools.dataset_rows import DatasetRows
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.merge import merge
from shards.tools.reshard import reshard
from shards.tools.split import split_by_identity, split_by_keys
from shards.tools.verify import verify
from tests.drawn_shards import (
    Samples,
    bytes_of,
    drawn_groups,
    read_by_webdataset,
    run_and_kill,
    shards_of,
    write_dataset,
)


@pytest.fixture
def samples() -> Samples:
    """30 identities with two outfits."""
    return drawn_groups(30, outfits=2)


@pytest.fixture
def folder(tmp_path: Path, samples: Samples) -> Path:
    """Eight shards of up to 8 groups."""
    return write_dataset(tmp_path / "data", samples)


def _keys(folder: Path) -> list[str]:
    return list(DatasetRows(str(folder)).all_keys())


def test_merged_datasets_hold_all_samples_by_key_whatever_their_order(tmp_path: Path) -> None:
    one, two = drawn_groups(11, seed=2), drawn_groups(9, seed=1)
    a, b = write_dataset(tmp_path / "a", one), write_dataset(tmp_path / "b", two, max_samples=3)
    about = merge([str(a), str(b)], str(tmp_path / "ab"), max_samples=6)
    merge([str(b), str(a)], str(tmp_path / "ba"), max_samples=6)
    assert read_by_webdataset(shards_of(tmp_path / "ab")) == one | two
    assert _keys(tmp_path / "ab") == sorted(one | two)
    assert bytes_of(tmp_path / "ab") == bytes_of(tmp_path / "ba")
    assert verify(str(tmp_path / "ab")).problems == []
    assert (about["groups"], about["identities"], about["pipeline"]) == (20, 20, "drawn")
    assert about["licences"] == {"CC0-1.0": 20, "not stated": 20}
    assert [parent["groups"] for parent in about["lineage"]["parents"]] != []


def test_keys_that_two_datasets_have_are_named_or_taken_from_the_first(tmp_path: Path) -> None:
    one, two = drawn_groups(4, seed=1), drawn_groups(6, seed=1, photos=3)
    a, b = write_dataset(tmp_path / "a", one), write_dataset(tmp_path / "b", two)
    with pytest.raises(DatasetError, match=f"4 keys are in more than one dataset: {next(iter(one))}"):
        merge([str(a), str(b)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    merge([str(a), str(b)], str(tmp_path / "out"), on_duplicate="keep-first")
    assert read_by_webdataset(shards_of(tmp_path / "out")) == two | one


def test_merging_does_not_bring_back_whom_one_of_them_has_forgotten(tmp_path: Path) -> None:
    samples = drawn_groups(6)
    a = write_dataset(tmp_path / "a", samples)
    again = {key.replace("0", "f", 1): members for key, members in list(samples.items())[:2]}
    b = write_dataset(tmp_path / "b", again)
    forget(str(a), IdsToForget(keys=frozenset([next(iter(samples))])))
    with pytest.raises(DatasetError, match=r"holds a photo that another of these datasets has forgotten"):
        merge([str(a), str(b)], str(tmp_path / "out"))
    stones = DatasetRows(str(a)).tombstones()
    forget(str(b), IdsToForget(tombstones=stones))
    about = merge([str(a), str(b)], str(tmp_path / "out"))
    assert about["groups"] == 6
    assert DatasetRows(str(tmp_path / "out")).tombstones().to_bytes() == stones.to_bytes()


def test_nobody_is_in_two_parts_and_the_parts_are_all(folder: Path, tmp_path: Path, samples: Samples) -> None:
    outs = [tmp_path / name for name in ("train", "eval", "test")]
    split_by_identity(str(folder), list(map(str, outs)), [0.5, 0.25, 0.25])
    parts = [read_by_webdataset(shards_of(out)) for out in outs]
    assert parts[0] | parts[1] | parts[2] == samples
    people = [{identity_of(key) for key in part} for part in parts]
    assert sum(map(len, people)) == 30
    assert all(people)
    assert all(verify(str(out)).problems == [] for out in outs)


def test_a_person_stays_in_the_same_part_when_the_dataset_grows(tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "small", drawn_groups(10))
    large = write_dataset(tmp_path / "large", drawn_groups(40))
    for name in ("small", "large"):
        split_by_identity(
            str(tmp_path / name), [str(tmp_path / f"{name}-0"), str(tmp_path / f"{name}-1")], [0.6, 0.4]
        )
    for part in "01":
        assert set(_keys(tmp_path / f"small-{part}")) == set(_keys(tmp_path / f"large-{part}")) & set(
            _keys(small)
        )
    assert len(_keys(large)) == 40


def test_fractions_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 positive fractions that add up to 1"):
        split_by_identity(str(folder), [str(tmp_path / "a"), str(tmp_path / "b")], [0.9, 0.2])


def test_listed_keys_are_split_off_and_a_torn_person_is_named(
    folder: Path, tmp_path: Path, samples: Samples
) -> None:
    outs = [str(tmp_path / "a"), str(tmp_path / "b")]
    keys = list(samples)[:4]
    split_by_keys(str(folder), outs, keys)
    assert _keys(tmp_path / "a") == keys
    assert _keys(tmp_path / "b") == list(samples)[4:]
    torn = [str(tmp_path / "c"), str(tmp_path / "d")]
    with pytest.raises(DatasetError, match=f"1 identities would be in both parts, as {identity_of(keys[0])}"):
        split_by_keys(str(folder), torn, keys[:1])
    split_by_keys(str(folder), torn, keys[:1], allow_shared=True)
    assert len(_keys(tmp_path / "d")) == 59
    with pytest.raises(DatasetError, match="1 of the keys are not there, as nobody"):
        split_by_keys(str(folder), [str(tmp_path / "e"), str(tmp_path / "f")], ["nobody"])


def test_resharded_samples_keep_their_order_and_bytes(folder: Path, tmp_path: Path, samples: Samples) -> None:
    reshard(str(folder), str(tmp_path / "few"), max_samples=25, max_bytes=2**30)
    assert [len(read_by_webdataset([path])) for path in shards_of(tmp_path / "few")] == [25, 25, 10]
    assert read_by_webdataset(shards_of(tmp_path / "few")) == samples
    assert _keys(tmp_path / "few") == list(samples)
    assert verify(str(tmp_path / "few")).problems == []
    reshard(str(tmp_path / "few"), str(tmp_path / "back"), max_samples=8, max_bytes=2**30)
    assert [Path(path).read_bytes() for path in shards_of(tmp_path / "back")] == [
        Path(path).read_bytes() for path in shards_of(folder)
    ]
    for name in ("index.arrow", "index.parquet"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()


def test_resharded_shards_keep_to_their_bytes(folder: Path, tmp_path: Path) -> None:
    reshard(str(folder), str(tmp_path / "small"), max_samples=1000, max_bytes=20_000)
    sizes = [Path(path).stat().st_size for path in shards_of(tmp_path / "small")]
    assert max(sizes) <= 20_000 + 1024
    assert len(sizes) > 20
    with pytest.raises(ValueError, match="at least one sample"):
        reshard(str(folder), str(tmp_path / "none"), max_samples=0, max_bytes=1)


def test_a_position_goes_on_in_the_resharded_dataset_also_after_a_forget(
    folder: Path, tmp_path: Path, samples: Samples
) -> None:
    begun = Revisions.of(DatasetRows(str(folder)).about)
    read = begun.order(Position(9))(np.arange(21))
    position = replace(Position(9), consumed=21)
    forget(str(folder), IdsToForget(keys=frozenset(list(samples)[5:9])))
    reshard(str(folder), str(tmp_path / "new"), max_samples=25, max_bytes=2**30)
    revisions = DatasetFolder(str(tmp_path / "new")).revisions
    position = revisions.map_position(position)
    order = revisions.order(position)
    keys = _keys(tmp_path / "new")
    rest = [keys[number] for number in order(np.arange(position.consumed, order.samples))]
    before = [list(samples)[number] for number in read]
    assert not set(rest) & set(before)
    assert {*rest, *before} >= set(keys)


def test_foreign_tars_are_resharded_with_their_names(tmp_path: Path) -> None:
    import io
    import tarfile

    data = tmp_path / "data"
    data.mkdir()
    samples = {f"./sub/{'n' * 120}{n:02d}": {"left.jpg": b"%d" % n, "txt": b"t"} for n in range(9)}
    with tarfile.open(data / "x.tar", "w") as tar:
        for key, members in samples.items():
            for suffix, content in members.items():
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    build_index(str(data))
    reshard(str(data), str(tmp_path / "out"), max_samples=4, max_bytes=2**30)
    assert read_by_webdataset(shards_of(tmp_path / "out")) == samples
    assert verify(str(tmp_path / "out")).problems == []


def test_a_folder_that_holds_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"is not empty \(notes\.txt\)"):
        reshard(str(folder), str(out), max_samples=8, max_bytes=2**30)
    with pytest.raises(DatasetError, match="already holds a dataset"):
        reshard(str(folder), str(folder), max_samples=8, max_bytes=2**30)
    assert (out / "notes.txt").read_text() == "mine"


def test_damage_in_a_source_is_named_and_no_dataset_comes_of_it(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "000003.tar").read_bytes())
    data[520] ^= 1
    (folder / "000003.tar").write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"000003\.tar: member json at byte 512"):
        reshard(str(folder), str(tmp_path / "out"), max_samples=8, max_bytes=2**30)
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        DatasetFolder(str(tmp_path / "out"))


def test_killed_anywhere_there_is_no_half_dataset_and_the_same_command_ends_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(3), max_samples=5)
    out = tmp_path / "undisturbed"
    reshard(str(folder), str(out), max_samples=2, max_bytes=2**30)
    killed = run_and_kill(
        tmp_path,
        folder,
        """
from shards.tools.reshard import reshard
def work(folder):
    reshard(folder, folder + "/out", max_samples=2, max_bytes=2**30)
""",
    )
    assert len(killed) > 10
    for copy in killed:
        whole = (copy / "out" / "dataset.json").exists()
        made = {path.name: path.stat().st_mtime_ns for path in (copy / "out").glob("*.tar")}
        if whole:
            assert verify(str(copy / "out"), fast=True).shards == 2
        reshard(str(copy), str(copy / "out"), max_samples=2, max_bytes=2**30)
        assert bytes_of(copy / "out") == bytes_of(out)
        again = {path.name: path.stat().st_mtime_ns for path in (copy / "out").glob("*.tar")}
        redone = [name for name, stamp in made.items() if again[name] != stamp]
        assert len(redone) <= 1  # what was whole, but for the last, was not written again
