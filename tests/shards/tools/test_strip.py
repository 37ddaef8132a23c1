"""`strip` takes metadata off the photos of a dataset, and changes nothing else of it."""

import hashlib
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from persona import main
from shards.format.members import photo_ids, pictures_of
from shards.format.orientation import orientation_of
from shards.format.sample import json_bytes
from shards.reading.folder import DatasetFolder
from shards.reading.revisions import Revisions
from shards.reading.steps import Position
from shards.tools.build_index import build_index
from shards.tools.credits import credits_of
from shards.tools.dataset_rows import DatasetRows
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.strip import Stripping, strip
from shards.tools.verify import verify
from tests.drawn_metadata import found_in, planted, saved
from tests.drawn_pipeline import environment
from tests.drawn_rights import marked
from tests.drawn_shards import (
    Samples,
    bytes_of,
    drawn_groups,
    read_by_webdataset,
    run_and_kill,
    shards_of,
    with_metadata,
    write_dataset,
)
from tests.hostile.pictures import png_chunk
from tests.metadata import decided

MARKED = {each.name: each for each in marked()}
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of metadata that is planted with little care


@pytest.fixture
def samples() -> Samples:
    """12 groups of two photos; those of the first shard of four carry nothing."""
    plain, told = drawn_groups(4), with_metadata(drawn_groups(8, seed=1))
    return {**plain, **told}


@pytest.fixture
def folder(tmp_path: Path, samples: Samples) -> Path:
    """Three shards of four groups."""
    return write_dataset(tmp_path / "data", samples, max_samples=4)


def about(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset.json").read_text()))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_photos_lose_their_metadata_and_nothing_else_changes(folder: Path, samples: Samples) -> None:
    before, credits = bytes_of(folder), list(credits_of(str(folder)))
    done = strip(str(folder))
    assert (done.revision, done.photos, done.stripped, done.shards_rewritten) == (1, 24, 16, 2)
    assert done.saved_bytes > 0
    assert {"exif", "xmp", "iptc", "behind the picture"} <= set(done.gone)
    assert verify(str(folder)).ok
    after = bytes_of(folder)
    assert after["000000.tar"] == before["000000.tar"]
    assert not any(found_in(data) for data in after.values())
    assert any(found_in(data) for data in before.values())
    assert list(credits_of(str(folder))) == credits
    assert about(folder)["stripped"]["bytes"] == done.gone
    read = read_by_webdataset(shards_of(folder))
    assert list(read) == list(samples)
    for key, members in samples.items():
        assert list(read[key]) == list(members)
        for suffix, data in members.items():
            made = read[key][suffix]
            if suffix.endswith(".jpg"):
                assert np.array_equal(pixels(made), pixels(data))
            elif suffix.endswith(".json"):
                stated = json.loads(made)
                assert ("stripped" in stated) == (found_in(members[suffix[:3] + ".jpg"]) != set())
                stated.pop("stripped", None)
                assert stated == json.loads(data)
            else:
                assert made == data


def test_a_dataset_without_metadata_stays_as_it_is(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", drawn_groups(6))
    before = bytes_of(folder)
    assert strip(str(folder)) == Stripping(0, photos=12)
    assert bytes_of(folder) == before


def test_a_second_time_changes_nothing(folder: Path) -> None:
    strip(str(folder))
    before = bytes_of(folder)
    assert strip(str(folder)).stripped == 0
    assert bytes_of(folder) == before


def test_what_would_go_is_told_and_nothing_changed(folder: Path) -> None:
    before = bytes_of(folder)
    told = strip(str(folder), dry_run=True)
    assert bytes_of(folder) == before
    assert told == strip(str(folder))


def test_several_processes_write_the_same_bytes(folder: Path, samples: Samples, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", samples, max_samples=4)
    strip(str(folder), processes=2)
    strip(str(other))
    assert bytes_of(folder) == bytes_of(other)


def test_a_training_goes_on_where_it_was(folder: Path) -> None:
    strip(str(folder))
    position = Position(seed=3, epoch=1, consumed=5)
    moved = Revisions.of(about(folder)).map_position(position)
    assert (moved.consumed, moved.revision) == (5, 1)
    assert len(DatasetFolder(str(folder))) == 12


def test_a_photo_is_forgotten_by_the_sha256_of_what_was_collected(folder: Path, samples: Samples) -> None:
    key = list(samples)[7]
    collected = hashlib.sha256(samples[key]["001.jpg"]).hexdigest()
    strip(str(folder))
    done = forget(str(folder), IdsToForget(photos=frozenset([collected])), min_photos=1)
    assert (done.photos, done.groups_edited, done.revision) == (1, 1, 2)
    assert verify(str(folder)).ok


def foreign(where: Path) -> dict[str, dict[str, bytes]]:
    """Samples of others, each with photos that carry metadata and records of another kind."""

    def photo(number: int) -> bytes:
        random = np.random.default_rng(number)
        sink = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (24, 40, 3), np.uint8)).save(sink, "JPEG")
        return planted(sink.getvalue(), 6)

    return {
        "a": {"jpg": photo(1), "json": b'{"LICENSE": "CC0", "photo_id": 77}', "txt": b"one"},
        "b": {"JPG": photo(2)},
        "c": {"l.jpg": photo(3), "r.jpg": photo(4), "json": b'{"author": "Ann", "n": 12345678901234567890}'},
        "d": {"left.jpg": photo(5), "left.JSON": b'{"author": "Bo"}', "txt": b"two"},
    }  # fmt: skip


def test_photos_of_others_are_found_by_their_sha256_too_and_keep_their_credits(tmp_path: Path) -> None:
    samples = foreign(tmp_path)
    folder = write_dataset(tmp_path / "data", samples)
    credits = list(credits_of(str(folder)))
    done = strip(str(folder))
    assert (done.stripped, done.left) == (5, ())
    assert list(credits_of(str(folder))) == credits
    dataset = DatasetRows(str(folder))
    for number, key in enumerate(samples):
        members = dataset.read(number).members
        assert not any(map(found_in, members.values()))
        wanted = {s: hashlib.sha256(samples[key][s]).hexdigest() for s in pictures_of(samples[key])}
        assert photo_ids(members) == dataset.photo_ids(number) == wanted
    assert json.loads(dataset.read(0).members["json"])["collection_photo_id"] == 77
    assert json.loads(dataset.read(2).members["l.json"])["n"] == 12345678901234567890


def test_tars_of_others_are_stripped_where_they_lie(tmp_path: Path) -> None:
    written = write_dataset(tmp_path / "written", foreign(tmp_path))
    folder = tmp_path / "data"
    folder.mkdir()
    for shard in shards_of(written):
        (folder / "photos-0001.tar").write_bytes(Path(shard).read_bytes())
    build_index(str(folder))
    assert strip(str(folder)).stripped == 5
    assert verify(str(folder)).ok
    assert not any(found_in(data) for data in bytes_of(folder).values())


def test_what_cannot_be_stripped_stays_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = foreign(tmp_path)
    samples["e"] = {"jpg": b"no photo at all"}
    samples["f"] = {"heic": b"an iPhone's"}
    samples["g"] = {"jpg": samples["a"]["jpg"], "json": b"[1]"}
    samples["h"] = {"jpg": samples["a"]["jpg"], "png": samples["b"]["JPG"], "json": b"{}"}
    folder = write_dataset(tmp_path / "data", samples)
    assert main(["shards", "strip", str(folder)]) == 1
    said = capsys.readouterr().out
    for line in (
        "e.jpg: no JPEG",
        "f.heic: of a format",
        "g.jpg: json is no JSON",
        "h.jpg: json is the record",
    ):
        assert line in said
    assert "5 of 9 photos stripped" in said
    dataset = DatasetRows(str(folder))
    assert {key: dataset.read(number).members for number, key in enumerate(samples) if key > "d"} == {
        key: members for key, members in samples.items() if key > "d"
    }


def test_killed_at_any_point_it_is_gone_on_with_and_one_revision_is_whole(tmp_path: Path) -> None:
    samples = {**drawn_groups(2), **with_metadata(drawn_groups(2, seed=1))}
    original = write_dataset(tmp_path / "original", samples, max_samples=1)
    undisturbed = write_dataset(tmp_path / "undisturbed", samples, max_samples=1)
    strip(str(undisturbed))
    killed = run_and_kill(
        tmp_path, original, "from shards.tools.strip import strip\ndef work(folder):\n    strip(folder)\n"
    )
    assert len(killed) > 8
    for number, folder in enumerate(killed):
        dataset = DatasetFolder(str(folder))
        assert [dataset.read(n).key for n in range(len(dataset))] == list(samples)
        if number % 2:  # another change comes first: what was begun is nothing to it
            forget(str(folder), IdsToForget())
            assert not list(folder.glob("*.part"))
        strip(str(folder))
        assert bytes_of(folder) == bytes_of(undisturbed)


def test_what_a_photo_stated_of_its_use_stays_in_its_record_and_is_obeyed_once_more(tmp_path: Path) -> None:
    told = {
        name: MARKED[name] for name in ("jpeg, prohibited, element", "png, synthetic, QCode", "jpeg, no XML")
    }
    told |= {name: MARKED[name] for name in ("WEBP, C2PA, damaged", "jpeg, of a camera")}
    samples = {
        str(number): {"png" if "png" in name else "webp" if "WEBP" in name else "jpg": each.data}
        for number, (name, each) in enumerate(told.items())
    }
    folder = write_dataset(tmp_path / "data", samples)
    done = strip(str(folder))
    assert (done.stripped, done.left) == (len(told), ())
    dataset = DatasetRows(str(folder))
    for number, each in enumerate(told.values()):
        members = dataset.read(number).members
        (picture,) = pictures_of(members)
        assert decided(members[picture]) is None
        assert decided(members[picture], metadata=members["json"].decode()) == each.reason
        row = json.dumps({"record": members["json"].decode()})  # as `shards export parquet` writes it
        assert decided(members[picture], metadata=row) == each.reason


def test_a_mark_of_the_bytes_is_not_lost_to_an_older_one_of_the_record(tmp_path: Path) -> None:
    before = {"mining": "plus:DataMining DMI-ALLOWED", "source_type": "digitalCapture"}
    names = ("jpeg, prohibited, element", "jpeg, synthetic, QCode")
    samples = {
        str(number): {"jpg": MARKED[name].data, "json": json_bytes({"stated_marks": before})}
        for number, name in enumerate(names)
    }
    folder = write_dataset(tmp_path / "data", samples)
    assert strip(str(folder)).stripped == 2
    dataset = DatasetRows(str(folder))
    for number, name in enumerate(names):
        members = dataset.read(number).members
        assert decided(members["jpg"], metadata=members["json"].decode()) == MARKED[name].reason


def test_exif_in_words_goes_from_the_record_and_no_photo_is_turned_otherwise(tmp_path: Path) -> None:
    words = json.dumps({"Image Orientation": "Rotated 90 CW", "GPS GPSLatitude": "[52, 31, 12]"})
    record = json_bytes({"width": 40, "exif": words})
    camera = Image.Exif()
    camera[0x010F] = "Cam"
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 255, (24, 40, 3), np.uint8))
    samples = {
        "bytes": {"jpg": saved(picture, "JPEG", exif=camera), "json": record},
        "record": {"jpg": saved(picture, "JPEG"), "json": record},
    }
    folder = write_dataset(tmp_path / "data", samples)
    assert strip(str(folder)).stripped == 2
    dataset = DatasetRows(str(folder))
    for number, (before, turn) in enumerate(zip(samples.values(), (1, 6), strict=True)):
        after = dataset.read(number).members
        assert b"GPS" not in after["json"]
        assert json.loads(after["json"])["stripped"]["exif in the record"] > 0
        for members in (before, after):
            assert orientation_of(members["jpg"], json.loads(members["json"])) == turn
    assert strip(str(folder)).stripped == 0


def test_a_photo_of_more_pixels_than_pillow_opens_stays_and_is_named(tmp_path: Path) -> None:
    side = 14_000
    packing = zlib.compressobj(9)
    rows = b"".join(packing.compress(bytes(1 + side // 8)) for _ in range(side)) + packing.flush()
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    text = png_chunk(b"tEXt", b"Author\0Ann")
    photo = b"\x89PNG\r\n\x1a\n" + head + text + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    folder = write_dataset(tmp_path / "data", {**foreign(tmp_path), "large": {"png": photo}})
    # Curation, which has a limit of its own, lifts Pillow's in its process.
    code = f"from shards.tools.strip import strip\nprint(strip({str(folder)!r}).left)"
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert "large.png: Image size (196000000 pixels) exceeds limit" in said
