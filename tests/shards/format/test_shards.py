"""Shards: plain tars that any reader of WebDataset reads, equal content in equal bytes, never half."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
import xxhash
from PIL import Image

from shards.format.dataset_writer import ShardWriter
from shards.format.sample import Group, PhotoMember, members_of
from shards.reading.folder import DatasetFolder
from tests.drawn_people import Drawn
from tests.drawn_pipeline import curate, settings, write_config


@pytest.fixture(scope="module")
def dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a run over the drawn collection, two groups in each."""
    folder = tmp_path_factory.mktemp("shards")
    pipeline = settings(photos)
    pipeline["shards"]["max_groups"] = 2
    curate(write_config(folder / "pipelines.yaml", pipeline), folder / "run")
    return folder / "run" / "shards"


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_the_index_finds_every_member_and_its_checksum_holds(dataset: Path) -> None:
    shards = [shard["name"] for shard in json.loads((dataset / "dataset.json").read_text())["shards"]]
    index = pq.read_table(dataset / "index.parquet").to_pylist()
    assert len({row["shard"] for row in index}) > 1
    listed = set()
    for row in index:
        name = shards[row["shard"]]
        with (dataset / name).open("rb") as stream:
            for member in row["members"]:
                stream.seek(member["offset"])
                assert xxhash.xxh3_128_digest(stream.read(member["length"])) == member["checksum"]
                listed.add((name, f"{row['key']}.{member['suffix']}"))
    assert listed == {(path.name, name) for path in dataset.glob("*.tar") for name in names_in(path)}


def test_a_run_s_dataset_is_read_by_number(dataset: Path) -> None:
    folder = DatasetFolder(str(dataset))
    assert len(folder) == json.loads((dataset / "dataset.json").read_text())["groups"]
    for number in range(len(folder)):
        sample = folder.read(number)
        group = json.loads(sample.members["json"])
        assert group["group"] == sample.key
        assert sum(suffix.endswith(".jpg") for suffix in sample.members) == group["photos"]


def test_dataset_json_counts_what_is_there(dataset: Path) -> None:
    record = json.loads((dataset / "dataset.json").read_text())
    tars = sorted(dataset.glob("*.tar"))
    assert [shard["name"] for shard in record["shards"]] == [path.name for path in tars]
    for shard, path in zip(record["shards"], tars, strict=True):
        assert shard["bytes"] == path.stat().st_size
        assert shard["checksum"] == xxhash.xxh3_128_hexdigest(path.read_bytes())
    for name in ("index.parquet", "index.arrow"):
        assert record["index"][name] == xxhash.xxh3_128_hexdigest((dataset / name).read_bytes())
    names = [name for path in tars for name in names_in(path)]
    assert record["photos"] == sum(name.endswith(".jpg") for name in names)


def test_webdataset_reads_groups_with_the_photos_as_they_were_collected(
    dataset: Path, drawn: list[Drawn]
) -> None:
    truth = {hashlib.sha256(photo.jpeg).hexdigest(): photo for photo in drawn}
    urls = [str(path) for path in sorted(dataset.glob("*.tar"))]
    groups = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(groups) == json.loads((dataset / "dataset.json").read_text())["groups"]
    for group in groups:
        record = json.loads(group["json"])
        assert record["group"] == group["__key__"]
        people = set()
        for number in range(record["photos"]):
            photo = truth[hashlib.sha256(group[f"{number:03d}.jpg"]).hexdigest()]
            people.add((photo.person, photo.outfit))
            said = json.loads(group[f"{number:03d}.json"])
            labels = np.array(Image.open(io.BytesIO(group[f"{number:03d}.regions.png"])))
            assert labels.shape == (said["height"], said["width"])
            assert set(np.unique(labels)) == {0, 4, 6, 9, 11}
            assert said["caption"].startswith("A person")
            assert "embedding" not in said
        assert len(people) == 1


def test_no_place_of_this_machine_is_written_into_a_dataset(dataset: Path, photos: Path) -> None:
    for path in dataset.iterdir():
        assert str(photos).encode() not in path.read_bytes()


def test_names_times_and_owners_are_fixed(dataset: Path) -> None:
    for path in dataset.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                assert member.isreg()


def test_a_writer_that_fails_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    def write_half() -> None:
        with ShardWriter(str(tmp_path / "000000.tar")) as writer:
            writer.add("a", "a.json", b"{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_long_and_foreign_names_survive(tmp_path: Path) -> None:
    names = ["ä" * 90 + ".json", "k" * 300 + ".json", "plain.json"]
    with ShardWriter(str(tmp_path / "a.tar")) as writer:
        members = [writer.add("k", name, name.encode()) for name in names]
        writer.close()
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == names
    for member in members:
        assert data[member.offset : member.offset + member.length] == member.member.encode()


def test_a_key_that_webdataset_would_cut_is_refused() -> None:
    photo = PhotoMember(b"", "jpeg", {}, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="must not"):
        members_of(Group("a.b", {}, [photo]))
