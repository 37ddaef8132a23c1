"""Photos whose turn only a record tells, as those of img2dataset: upright in curation, shards and readers."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from curation.photos.decode import open_photo
from curation.photos.decoder_process import DecoderProcess
from curation.photos.read import told_beside
from curation.settings.source import SourceSettings
from curation.sources.units import list_units, unit_rows
from persona import main
from shards.format.orientation import orientation_of, with_orientation
from shards.reading.folder import DatasetFolder, Sample
from shards.reading.photo_batches import PhotoBatches
from tests.drawn_people import HEIGHT, WIDTH, draw
from tests.drawn_pipeline import rows_of, settings, write_config

# What exifread calls the orientations, and so img2dataset's records.
WORDS = {
    1: "Horizontal (normal)",
    2: "Mirrored horizontal",
    3: "Rotated 180",
    4: "Mirrored vertical",
    5: "Mirrored horizontal then rotated 90 CCW",
    6: "Rotated 90 CW",
    7: "Mirrored horizontal then rotated 90 CW",
    8: "Rotated 90 CCW",
}
SCENE = cv2.resize(
    np.random.default_rng(4).integers(0, 255, (4, 5, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC
)


def stored(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as it lies in a file that says this orientation."""
    turns = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(turns[orientation](picture))


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, quality=95, **options)
    return sink.getvalue()


def record_of(orientation: int, **changes: Any) -> dict[str, Any]:
    """What img2dataset 1.47 writes beside a photo with `extract_exif`, which is its default."""
    exif = json.dumps({"Image Make": "Maker", "Image Orientation": WORDS[orientation]})
    return {
        "url": "https://photos.invalid/1",
        "status": "success",
        "width": 64,
        "height": 48,
        "exif": exif,
    } | changes


@pytest.mark.parametrize("orientation", WORDS)
def test_a_reader_turns_a_photo_by_the_record_where_its_bytes_tell_nothing(orientation: int) -> None:
    data = encoded(stored(SCENE, orientation))
    decoder = PhotoBatches(48, 64, photo="", masks=False)
    arrays = decoder.allocate(1)
    members = {"jpg": data, "json": json.dumps(record_of(orientation)).encode()}
    decoder.decode(Sample(0, "k", members), arrays, 0)
    assert np.abs(arrays["images"][0].astype(int) - SCENE).mean() < 3


def test_bytes_with_exif_are_turned_by_it_and_never_twice() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert orientation_of(encoded(SCENE, exif=exif), record_of(8)) == 6
    exif = Image.Exif()
    exif[0x010F] = "upright since it was edited"
    assert orientation_of(encoded(SCENE, exif=exif), record_of(8)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"width": None},  # bytes left as they came: disable_all_reencoding
        {"exif": None},
        {"exif": "{}"},
        {"exif": '{"Image Orientation": "aslant"}'},
        {"exif": '{"Image Orientation": 6}'},
        {"exif": "no JSON"},
        {"exif": "[" * 100_000},
        {"exif": ["Rotated 90 CW"]},
        {"orientation": "portrait", "exif": None},
        {"orientation": 9, "exif": None},
    ],
)
def test_a_record_that_tells_nothing_leaves_a_photo_as_it_is(changes: dict[str, Any]) -> None:
    assert orientation_of(encoded(SCENE), record_of(6) | changes) == 1
    assert orientation_of(encoded(SCENE), record_of(6, exif={"Image Orientation": WORDS[6]})) == 6
    assert orientation_of(encoded(SCENE), None) == 1


KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {}, "PNG": {}, "WEBP": {}, "WEBP lossless": {"lossless": True},
    "WEBP with a profile": {"icc_profile": bytes(131)}, "WEBP transparent": {"lossless": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_bytes_that_are_given_an_orientation_keep_their_pixels_and_are_turned_by_any_reader(
    kind: str, orientation: int
) -> None:
    picture = SCENE[:, :63]  # a WebP of odd length, too
    if kind == "WEBP transparent":
        picture = np.dstack([picture, np.full(picture.shape[:2], 200, np.uint8)])
    data = encoded(stored(picture, orientation), kind.split()[0], **KINDS[kind])
    told = with_orientation(data, orientation)
    assert orientation_of(told) == orientation
    assert with_orientation(told, 1) == told
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(told))
    assert (after.size, after.mode, after.info.get("icc_profile")) == (
        before.size, before.mode, before.info.get("icc_profile"),
    )  # fmt: skip
    assert np.array_equal(np.asarray(after), np.asarray(before))
    upright = np.asarray(ImageOps.exif_transpose(after).convert("RGB"))
    assert np.abs(upright.astype(int) - picture[..., :3]).mean() < 4
    by_opencv = cv2.imdecode(np.frombuffer(told, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(np.asarray(by_opencv, int) - upright).mean() < 2


def test_bytes_that_state_their_orientation_stay_as_they_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (encoded(SCENE), encoded(SCENE, exif=exif)):
        assert with_orientation(data, orientation_of(data)) is data


def test_the_process_that_decodes_is_told_as_this_one() -> None:
    data = encoded(stored(SCENE, 6))
    decoder = DecoderProcess(60, 2**31)
    there, here = decoder(data, told=6), open_photo(data, told=6)
    decoder.close()
    assert there[0] == here[0]
    assert (here[0].width, here[0].height, here[0].orientation) == (64, 48, 6)
    assert here[1] is not None
    assert there[1] is not None
    assert np.array_equal(there[1], here[1])
    assert np.abs(here[1].astype(int) - SCENE).mean() < 3


def test_a_record_in_a_struct_of_parquet_turns_its_photo(tmp_path: Path) -> None:
    # As `datasets` writes shards of img2dataset.
    photos = {"image": [encoded(stored(SCENE, 6)), encoded(SCENE)], "json": [record_of(6), record_of(1)]}
    pq.write_table(pa.table(photos), tmp_path / "a.parquet")
    source = SourceSettings(kind="parquet", path=str(tmp_path / "a.parquet"))
    rows = unit_rows(list_units(source)[0], source)
    assert [told_beside(row.metadata) for row in rows] == [6, 1]


def test_a_collection_of_img2dataset_is_upright_from_its_people_to_its_shards(tmp_path: Path) -> None:
    pictures = {f"{number:09d}": draw(8, number // 3, 0, number) for number in range(6)}
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "00000.tar", "w") as tar:
        for number, (key, picture) in enumerate(pictures.items()):
            orientation = 8 if number % 2 else 6
            record = record_of(orientation, width=HEIGHT, height=WIDTH, key=key)
            for suffix, data in (
                ("jpg", encoded(stored(picture, orientation))),
                ("json", json.dumps(record).encode()),
            ):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    config = write_config(tmp_path / "p.yaml", settings(tmp_path / "tars", kind="webdataset"))
    words = [
        "curate",
        "drawn",
        "--config",
        config,
        "--out",
        tmp_path / "run",
        "--engine",
        "inline",
        "--quiet",
    ]
    assert main([str(word) for word in words]) == 0
    rows = rows_of(tmp_path / "run" / "photos")
    assert [row["orientation"] for row in rows] == [6, 8] * 3
    assert {(row["width"], row["height"]) for row in rows} == {(WIDTH, HEIGHT)}
    dataset = DatasetFolder(str(tmp_path / "run" / "shards"))
    assert sum(dataset.index.people(number) for number in range(len(dataset))) == 6
    for sample in map(dataset.read, range(len(dataset))):
        for number in range(3):
            record = json.loads(sample.members[f"{number:03d}.json"])
            photo = ImageOps.exif_transpose(Image.open(io.BytesIO(sample.members[f"{number:03d}.jpg"])))
            assert photo.size == (record["width"], record["height"])
            drawn = pictures[record["file_name"].removesuffix(".jpg")]
            assert np.abs(np.asarray(photo, int) - drawn).mean() < 12
