"""`forget` takes people out: only what held them changes, at any moment one revision is whole, and no
training reads anybody twice or leaves anybody out."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.format.dataset import DatasetError
from shards.format.members import identity_of
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.steps import Position
from shards.tools.build_index import build_index
from shards.tools.dataset_rows import DatasetRows
from shards.tools.forget import DatasetChange, forget
from shards.tools.forget_plan import IdsToForget
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
    """20 identities with two outfits, three photos each."""
    return drawn_groups(20, outfits=2, photos=3)


@pytest.fixture
def folder(tmp_path: Path, samples: Samples) -> Path:
    """Five shards of 8 groups."""
    return write_dataset(tmp_path / "data", samples)


def _about(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset.json").read_text()))


def _photo_ids(members: dict[str, bytes]) -> list[str]:
    return [hashlib.sha256(data).hexdigest() for name, data in members.items() if name.endswith("jpg")]


def test_a_forgotten_identity_is_gone_and_only_its_shard_changed(folder: Path, samples: Samples) -> None:
    before = bytes_of(folder)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    identity = identity_of(list(samples)[9])
    assert forget(str(folder), IdsToForget(identities=frozenset([identity]))) == DatasetChange(1, 2, 0, 6, 1)
    left = {key: members for key, members in samples.items() if identity_of(key) != identity}
    assert read_by_webdataset(shards_of(folder)) == left
    assert verify(str(folder)).problems == []
    names = {path.name for path in folder.iterdir()}
    assert {name for name in names if name.endswith(".tar")} == {
        "000000.tar", "000001-r1.tar", "000002.tar", "000003.tar", "000004.tar"
    }  # fmt: skip
    for name in ("000000.tar", "000002.tar", "000003.tar", "000004.tar"):
        assert (folder / name).read_bytes() == before[name]
        assert (folder / name).stat().st_mtime_ns == stamps[name]
    about = _about(folder)
    assert (about["revision"], about["groups"], about["photos"], about["identities"]) == (1, 38, 114, 19)
    assert about["licences"] == {"CC0-1.0": 38, "not stated": 76}
    assert about["photos_per_group"] == {"3": 38}
    assert "| groups | 38 |" in (folder / "README.md").read_text()


def test_nothing_left_in_the_folder_tells_of_the_forgotten(folder: Path, samples: Samples) -> None:
    key = list(samples)[9]
    forget(str(folder), IdsToForget(identities=frozenset([identity_of(key)])))
    everything = b"".join(bytes_of(folder).values())
    for trace in (identity_of(key), *_photo_ids(samples[key])):
        assert trace.encode() not in everything


def test_a_forgotten_photo_leaves_its_group_numbered_without_a_gap(folder: Path, samples: Samples) -> None:
    key = list(samples)[20]
    gone = _photo_ids(samples[key])[1]
    assert forget(str(folder), IdsToForget(photos=frozenset([gone]))) == DatasetChange(1, 0, 1, 1, 1)
    dataset = DatasetFolder(str(folder))
    assert len(dataset) == 40
    members = dataset.read(20).members
    was = samples[key]
    assert members == {
        "json": was["json"].replace(b'"photos":3', b'"photos":2'),
        "000.jpg": was["000.jpg"],
        "000.regions.png": was["000.regions.png"],
        "000.json": was["000.json"],
        "001.jpg": was["002.jpg"],
        "001.regions.png": was["002.regions.png"],
        "001.json": was["002.json"],
    }
    assert verify(str(folder)).problems == []
    assert DatasetRows(str(folder)).row(20)["people"] == 2


def test_a_group_that_keeps_too_few_photos_goes_but_no_small_group_that_lost_none(tmp_path: Path) -> None:
    samples = drawn_groups(10, photos=2) | drawn_groups(4, photos=1, seed=1)
    folder = write_dataset(tmp_path / "data", samples)
    photo = _photo_ids(samples[list(samples)[3]])[0]
    other = _photo_ids(samples[list(samples)[3]])[1]
    assert forget(str(folder), IdsToForget(photos=frozenset([photo]))) == DatasetChange(1, 1, 0, 2, 1)
    assert set(read_by_webdataset(shards_of(folder))) == set(samples) - {list(samples)[3]}
    stones = DatasetRows(str(folder)).tombstones()
    assert stones.has("photo", photo)
    assert not stones.has("photo", other)  # nobody asked for that
    kept = _photo_ids(samples[list(samples)[5]])[0]
    assert forget(str(folder), IdsToForget(photos=frozenset([kept])), min_photos=1).groups_edited == 1


def test_tombstones_tell_of_every_photo_that_went_and_name_none(folder: Path, samples: Samples) -> None:
    key = next(iter(samples))
    forget(str(folder), IdsToForget(keys=frozenset([key])))
    stones = DatasetRows(str(folder)).tombstones()
    assert len(stones) == 4
    assert stones.has("key", key)
    assert all(stones.has("photo", id_) for id_ in _photo_ids(samples[key]))
    assert not stones.has("photo", _photo_ids(samples[list(samples)[1]])[0])


def test_tombstones_of_one_dataset_clear_another(tmp_path: Path, folder: Path, samples: Samples) -> None:
    other = write_dataset(tmp_path / "other", samples, max_samples=5)
    keys = list(samples)
    forget(str(folder), IdsToForget(identities=frozenset([identity_of(keys[0])])))
    forget(str(folder), IdsToForget(photos=frozenset(_photo_ids(samples[keys[8]])[:1])))
    stones = DatasetRows(str(folder)).tombstones()
    assert forget(str(other), IdsToForget(tombstones=stones)).photos == 7
    assert read_by_webdataset(shards_of(other)) == read_by_webdataset(shards_of(folder))
    assert DatasetRows(str(other)).tombstones().to_bytes() == stones.to_bytes()


def test_a_shard_that_is_left_empty_is_gone_and_all_may_be_forgotten(folder: Path, samples: Samples) -> None:
    forget(str(folder), IdsToForget(keys=frozenset(list(samples)[8:16])))
    assert len(shards_of(folder)) == 4
    assert read_by_webdataset(shards_of(folder)).keys() == set(samples) - set(list(samples)[8:16])
    assert verify(str(folder)).problems == []
    dataset = DatasetFolder(str(folder))
    assert [dataset.read(number).key for number in range(len(dataset))] == list(samples)[:8] + list(samples)[
        16:
    ]
    forget(str(folder), IdsToForget(keys=frozenset([*list(samples)[:8], *list(samples)[16:]])))
    assert verify(str(folder)).problems == []
    assert len(DatasetFolder(str(folder))) == 0


def test_an_id_that_is_not_there_is_an_error_and_changes_nothing(folder: Path, samples: Samples) -> None:
    before = bytes_of(folder)
    request = IdsToForget(keys=frozenset([next(iter(samples)), "nobody"]))
    with pytest.raises(DatasetError, match="1 ids are not there: key nobody; nothing was changed"):
        forget(str(folder), request)
    assert bytes_of(folder) == before
    assert forget(str(folder), request, missing_ok=True) == DatasetChange(1, 1, 0, 3, 1, 1)
    assert not DatasetRows(str(folder)).tombstones().has("key", "nobody")  # a name may be guessed
    after = bytes_of(folder)
    again = IdsToForget(keys=frozenset([next(iter(samples))]))
    assert forget(str(folder), again) == DatasetChange(1)  # forgotten before: no error, no new revision
    assert bytes_of(folder) == after


def test_a_photo_that_is_not_there_yet_can_be_kept_out(folder: Path) -> None:
    photo = hashlib.sha256(b"of somebody who asked").hexdigest()
    assert forget(str(folder), IdsToForget(photos=frozenset([photo])), missing_ok=True).missing == 1
    assert DatasetRows(str(folder)).tombstones().has("photo", photo)
    assert verify(str(folder)).problems == []
    (folder / "tombstones-r1.txt").write_text("")
    assert str(verify(str(folder)).problems[0]).startswith("tombstones-r1.txt: has the checksum ")


def test_keys_of_foreign_datasets_get_no_tombstones(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"anna-kowalska": {"jpg": b"1"}, "000017": {"jpg": b"2"}})
    forget(str(folder), IdsToForget(keys=frozenset(["anna-kowalska"])))
    stones = DatasetRows(str(folder)).tombstones()
    assert len(stones) == 1
    assert stones.has("photo", hashlib.sha256(b"1").hexdigest())


def test_a_dry_run_tells_and_changes_nothing(folder: Path, samples: Samples) -> None:
    before = bytes_of(folder)
    request = IdsToForget(keys=frozenset(list(samples)[:2]))
    told = forget(str(folder), request, dry_run=True)
    assert bytes_of(folder) == before
    assert told == forget(str(folder), request)


def test_damage_in_a_shard_that_must_be_copied_is_named_and_changes_nothing(
    folder: Path, samples: Samples
) -> None:
    data = bytearray((folder / "000000.tar").read_bytes())
    data[520] ^= 1
    (folder / "000000.tar").write_bytes(bytes(data))
    before = bytes_of(folder)
    with pytest.raises(DatasetError, match=r"000000\.tar: member json at byte 512"):
        forget(str(folder), IdsToForget(keys=frozenset([list(samples)[5]])))
    forget(str(folder), IdsToForget())  # clears what the failed call left
    assert bytes_of(folder) == before
    assert forget(str(folder), IdsToForget(keys=frozenset([list(samples)[9]]))).shards_rewritten == 1


def test_a_reader_of_the_old_revision_fails_and_reads_nothing_else(folder: Path, samples: Samples) -> None:
    reader = DatasetFolder(str(folder))
    assert reader.read(16).key == list(samples)[16]
    forget(str(folder), IdsToForget(keys=frozenset(list(samples)[8:10])))
    assert reader.read(30).members == samples[list(samples)[30]]  # of a shard that is still there
    with pytest.raises(OSError, match=r"000001\.tar"):
        reader.read(12)


def test_a_foreign_dataset_forgets_by_key_and_by_the_bytes_of_a_photo(tmp_path: Path) -> None:
    samples = {f"dir/{n:03d}": {"jpg": b"photo %d" % n, "txt": b"a caption"} for n in range(12)}
    for shard in range(3):
        with tarfile.open(tmp_path / f"part-{shard}.tar", "w") as tar:
            for key in list(samples)[shard * 4 : shard * 4 + 4]:
                for suffix, data in samples[key].items():
                    header = tarfile.TarInfo(f"{key}.{suffix}")
                    header.size, header.mtime = len(data), 1_700_000_000
                    tar.addfile(header, io.BytesIO(data))
    build_index(str(tmp_path))
    before = bytes_of(tmp_path)
    gone = hashlib.sha256(samples["dir/006"]["jpg"]).hexdigest()
    forget(str(tmp_path), IdsToForget(keys=frozenset(["dir/005"]), photos=frozenset([gone])))
    assert read_by_webdataset(shards_of(tmp_path)) == {
        key: members for key, members in samples.items() if key not in ("dir/005", "dir/006")
    }
    assert {
        name: data for name, data in bytes_of(tmp_path).items() if name in ("part-0.tar", "part-2.tar")
    } == {name: before[name] for name in ("part-0.tar", "part-2.tar")}
    assert verify(str(tmp_path)).problems == []


def test_killed_anywhere_one_revision_is_whole_and_the_same_command_ends_the_work(tmp_path: Path) -> None:
    samples = drawn_groups(4, photos=2)
    key = list(samples)[2]
    original = write_dataset(tmp_path / "original", samples, max_samples=2)
    undisturbed = write_dataset(tmp_path / "undisturbed", samples, max_samples=2)
    forget(str(undisturbed), IdsToForget(keys=frozenset([key])))
    killed = run_and_kill(
        tmp_path,
        original,
        f"""
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
def work(folder):
    forget(folder, IdsToForget(keys=frozenset([{key!r}])))
""",
    )
    states = set()
    for folder in killed:
        dataset = DatasetFolder(str(folder))
        keys = [dataset.read(number).key for number in range(len(dataset))]
        states.add(len(keys))
        assert keys == [name for name in samples if name != key or len(keys) == 4]
        forget(str(folder), IdsToForget(keys=frozenset([key])))
        assert bytes_of(folder) == bytes_of(undisturbed)
    assert len(killed) > 8
    assert states == {3, 4}


class _Keys:
    """A decoder that keeps the sample's key."""

    def allocate(self, batch: int) -> dict[str, Any]:
        return {"key": [None] * batch}

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        arrays["key"][slot] = sample.key


def _read(folder: Path, position: Position, batches: int | None = None) -> tuple[list[str], Position]:
    loader = Loader(DatasetFolder(str(folder), suffixes=["json"]), _Keys(), 7, position, tail="pad")
    read = []
    for number, batch in enumerate(loader):
        read += [key for key, weight in zip(batch.arrays["key"], batch.weight, strict=True) if weight]
        position = batch.after
        if batches is not None and number + 1 == batches:
            break
    return read, position


def test_a_training_goes_on_where_it_was_when_one_in_a_hundred_of_10_000_groups_is_forgotten(
    tmp_path: Path,
) -> None:
    keys = [f"{number:016x}-a" for number in range(10_000)]
    samples = {key: {"json": b"{}", "cls": key.encode()} for key in keys}
    folder = write_dataset(tmp_path / "data", samples, max_samples=500)
    before = bytes_of(folder)
    gone = set(np.random.default_rng(5).choice(keys[:3000], 100, replace=False).tolist())
    first, position = _read(folder, Position(4), 600)
    done = forget(str(folder), IdsToForget(keys=frozenset(gone)))
    assert (done.groups_dropped, done.shards_rewritten) == (100, 6)
    assert verify(str(folder)).problems == []
    after = bytes_of(folder)
    same = [f"{number:06d}.tar" for number in range(6, 20)]
    assert [before[name] for name in same] == [after[name] for name in same]
    rest, position = _read(folder, position)
    assert len(first) + len(rest) == len({*first, *rest})
    assert {*first, *rest} >= set(keys) - gone
    assert not set(rest) & gone
    assert (position.epoch, position.consumed) == (1, 0)
    following, _ = _read(folder, position)
    assert sorted(following) == sorted(set(keys) - gone)


def test_tombstones_serve_a_later_curation_as_its_opt_out_list(folder: Path, samples: Samples) -> None:
    from curation.excluded.opt_out import OptOuts
    from curation.settings.photos import ScreenSettings

    key = next(iter(samples))
    forget(str(folder), IdsToForget(identities=frozenset([identity_of(key)])))
    listed = OptOuts(ScreenSettings(opt_out=str(folder / "tombstones-r1.txt")))
    assert [len(listed.showing(id_, 0)[0]) for id_ in _photo_ids(samples[key])] == [1, 1, 1]
    assert listed.showing(_photo_ids(samples[list(samples)[5]])[0], 0) == (set(), None)
