"""`persona forget` where only a dataset is there, ours or of others: its own records say who is meant."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from persona import main
from shards.tools.build_index import build_index
from shards.tools.dataset_rows import DatasetRows
from shards.tools.verify import verify
from tests.drawn_foreign import photo, write_img2dataset
from tests.drawn_shards import drawn_groups, write_dataset
from tests.drawn_tars import tar_of

IDENTITY = f"{3:016x}"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Six people in two outfits each, two photos of each outfit."""
    return write_dataset(tmp_path / "data", drawn_groups(6, outfits=2))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Six photos of img2dataset, indexed; nothing beside the tars tells of them."""
    folder = write_img2dataset(tmp_path / "img2dataset")
    for path in (*folder.glob("*.parquet"), *folder.glob("*_stats.json")):
        path.unlink()
    build_index(str(folder))
    return folder


def persona(*words: str | Path) -> int:
    return main([str(word) for word in words])


def keys_of(folder: Path) -> list[str]:
    return list(DatasetRows(str(folder)).all_keys())


def test_a_person_leaves_a_dataset_that_stands_by_itself(ours: Path) -> None:
    assert persona("forget", ours, "--person", IDENTITY) == 0
    assert len(keys_of(ours)) == 10
    assert not any(key.startswith(IDENTITY) for key in keys_of(ours))
    assert verify(str(ours)).problems == []


def test_a_person_is_found_by_the_person_id_of_one_photo(ours: Path) -> None:
    dataset = DatasetRows(str(ours))
    record = json.loads(dataset.read(dataset.numbers()[f"{IDENTITY}-b"]).members["001.json"])
    dataset.close()
    assert persona("forget", ours, "--person", record["person_id"]) == 0
    assert not any(key.startswith(IDENTITY) for key in keys_of(ours))


def test_a_person_whom_no_record_names_is_an_error_and_changes_nothing(
    ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = keys_of(ours)
    assert persona("forget", ours, "--person", "f" * 16) == 1
    assert f"person {'f' * 16}" in capsys.readouterr().err
    assert keys_of(ours) == before


def test_a_photo_leaves_a_dataset_of_others_by_its_address(foreign: Path) -> None:
    assert persona("forget", foreign, "--url", "https://example.org/4.jpg") == 0
    assert keys_of(foreign) == [f"{number:09d}" for number in (0, 1, 2, 3, 5)]
    assert not [path for path in foreign.iterdir() if b"example.org/4.jpg" in path.read_bytes()]


def test_a_photo_leaves_a_dataset_of_others_by_any_address_in_its_record_and_by_several_at_once(
    tmp_path: Path,
) -> None:
    mine, other = "https://a.invalid/1.jpg", "https://b.invalid/1.jpg"
    records = [
        {"url": [mine, other], "seen": {"on": "https://b.invalid/album"}},
        {"url": "https://b.invalid/2.jpg"},
    ]
    members = [(f"{n}.{kind}", data) for n, said in enumerate(records) for kind, data in
               (("jpg", photo(n)), ("json", json.dumps(said).encode()))]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    build_index(str(tmp_path))
    assert persona("forget", tmp_path, "--url", mine, other, "https://b.invalid/album") == 0
    assert keys_of(tmp_path) == ["1"]


def test_a_photo_leaves_a_dataset_of_others_in_whatever_encoding_somebody_sends_it(
    foreign: Path, tmp_path: Path
) -> None:
    sent = tmp_path / "sent.png"
    Image.open(io.BytesIO(photo(2))).save(sent)
    assert persona("forget", foreign, "--hash", sent) == 0
    assert f"{2:09d}" not in keys_of(foreign)
    assert len(keys_of(foreign)) == 5


def test_what_img2dataset_wrote_beside_the_tar_is_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_img2dataset(tmp_path / "data")
    build_index(str(folder))
    assert persona("forget", folder, "--url", "https://example.org/4.jpg") == 1
    left = [Path(line.strip()).name for line in capsys.readouterr().err.splitlines()]
    assert left == ["00001.parquet", "00001_stats.json"]
