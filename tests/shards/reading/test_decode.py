"""Photos in slots of batches: upright, at their places, with their labels, whatever the file is."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from shards.format.label_maps import decode_labels
from shards.format.orientation import orientation_of
from shards.format.sample import json_bytes, label_png
from shards.reading.decode import Fit, decode_photo
from shards.reading.folder import Sample
from shards.reading.pairs import Pair
from shards.reading.photo_batches import BatchMemory, PairBatches, PhotoBatches


def _scene(height: int, width: int) -> np.ndarray:
    """Smooth colours, different in every corner."""
    coarse = np.random.default_rng(height * width).integers(0, 255, (5, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _encoded(pixels: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


def _with_orientation(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(pixels, quality=95, exif=exif)


def _upright(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def _distance(one: np.ndarray, other: Any) -> float:
    return float(np.abs(one.astype(int) - np.asarray(other).astype(int)).mean())


def test_a_photo_of_the_slots_size_is_decoded_as_pillow_decodes_it() -> None:
    data = _encoded(_scene(96, 64), quality=90)
    slot = np.empty((96, 64, 3), np.uint8)
    cut = decode_photo(data, slot)
    assert _distance(slot, _upright(data)) < 0.5
    assert cut.affine() == (1, 1, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_before_they_are_cut(orientation: int) -> None:
    data = _with_orientation(_scene(240, 160), orientation)
    photo = _upright(data)
    wanted = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BOX)
    for known in (orientation, None):
        slot = np.empty((wanted.height, wanted.width, 3), np.uint8)
        cut = decode_photo(data, slot, known)
        assert cut.size == photo.size
        assert _distance(slot, wanted) < 3


def test_a_large_photo_keeps_its_looks_when_it_is_decoded_at_a_reduced_scale() -> None:
    data = _encoded(_scene(1200, 900), quality=95)
    wanted = np.asarray(_upright(data).resize((150, 200), Image.Resampling.BOX))
    slot = np.empty((200, 150, 3), np.uint8)
    decode_photo(data, slot)
    assert _distance(slot, wanted) < 2


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize("size", [(700, 500), (300, 800), (90, 70)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_points_of_the_photo_lie_where_the_placement_says(
    fit: Fit, size: tuple[int, int], orientation: int
) -> None:
    photo = np.zeros((*size, 3), np.uint8)
    y, x = size[0] * 0.55, size[1] * 0.45
    cv2.circle(photo, (round(x), round(y)), max(size) // 25, (255, 255, 255), -1)
    encoded = np.rot90(photo) if orientation == 6 else photo  # orientation 6 turns it back
    slot = np.empty((128, 112, 3), np.uint8)
    cut = decode_photo(_encoded(encoded, quality=95), slot, orientation, fit)
    sx, sy, tx, ty = cut.affine()
    ys, xs = np.nonzero(slot[..., 0] > 127)
    assert (xs.mean(), ys.mean()) == pytest.approx((sx * x + tx, sy * y + ty), abs=1.5)
    assert sx == pytest.approx(sy, rel=0.03)


def test_a_photo_that_is_contained_leaves_the_rest_of_the_slot_empty() -> None:
    slot = np.full((64, 64, 3), 9, np.uint8)
    cut = decode_photo(_encoded(np.full((100, 50, 3), 200, np.uint8)), slot, fit="contain")
    assert cut.target == (16, 0, 48, 64)
    assert (slot[:, :16] == 0).all()
    assert (slot[:, 48:] == 0).all()
    assert slot[:, 16:48].min() > 190


def test_a_box_of_the_photo_fills_the_slot() -> None:
    photo = np.zeros((400, 600, 3), np.uint8)
    photo[100:200, 300:400] = 255
    slot = np.empty((64, 64, 3), np.uint8)
    decode_photo(_encoded(photo, quality=95), slot, box=(300, 100, 400, 200))
    assert slot.mean() > 245
    with pytest.raises(ValueError, match="outside of the photo of 600 × 400 px"):
        decode_photo(_encoded(photo), slot, box=(700, 0, 800, 100))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "grey JPEG", "CMYK JPEG", "transparent PNG", "16-bit PNG"])
def test_other_files_become_rgb(kind: str) -> None:
    pixels = _scene(60, 80)
    image = Image.fromarray(pixels)
    if kind == "grey JPEG":
        image = image.convert("L")
    elif kind == "CMYK JPEG":
        image = image.convert("CMYK")
    elif kind == "transparent PNG":
        image.putalpha(Image.new("L", image.size, 0))
    elif kind == "16-bit PNG":
        image = Image.fromarray(np.full((60, 80), 200 * 257, np.uint16))
    sink = io.BytesIO()
    image.save(sink, kind.split()[-1])
    slot = np.empty((60, 80, 3), np.uint8)
    decode_photo(sink.getvalue(), slot)
    wanted = {"transparent PNG": np.full((60, 80, 3), 255), "16-bit PNG": np.full((60, 80, 3), 200)}
    assert _distance(slot, wanted.get(kind, np.asarray(image.convert("RGB")))) < 6


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_broken_photo_is_an_error_and_never_pixels(damage: str) -> None:
    whole = _encoded(_scene(200, 200), quality=95)
    data = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not a photo</html>"}[damage]
    for size in (200, 50):
        with pytest.raises((ValueError, OSError)):
            decode_photo(data, np.empty((size, size, 3), np.uint8))


def test_orientation_is_read_from_the_bytes_where_no_record_states_it() -> None:
    assert orientation_of(_with_orientation(_scene(8, 8), 6)) == 6
    assert orientation_of(_encoded(_scene(8, 8))) == 1
    assert orientation_of(b"nonsense") == 1


def _labels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 18, (37, 53), np.uint8)


def test_labels_are_the_numbers_of_the_file_and_not_its_colours() -> None:
    labels = _labels()
    assert (decode_labels(label_png(labels)) == labels).all()
    assert (decode_labels(_encoded(labels, "PNG")) == labels).all()  # grey, filtered by libpng
    few = Image.fromarray(labels % 4, mode="P")
    few.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    sink = io.BytesIO()
    few.save(sink, "PNG", bits=2)
    assert (decode_labels(sink.getvalue()) == labels % 4).all()
    assert (decode_labels(bytes(cv2.imencode(".png", labels)[1])) == labels).all()


def test_a_map_of_colours_or_a_broken_one_is_refused() -> None:
    good = label_png(_labels())
    for data in (_encoded(_scene(8, 8), "PNG"), good[:60], good[: len(good) // 2], b"", b"no map" * 20):
        with pytest.raises((ValueError, OSError)):
            decode_labels(data)


def _members(stem: str, pixels: np.ndarray, labels: np.ndarray, orientation: int = 1) -> dict[str, bytes]:
    record = {"orientation": orientation, "width": labels.shape[1], "height": labels.shape[0]}
    return {
        f"{stem}.jpg": _encoded(pixels, quality=95),
        f"{stem}.regions.png": label_png(labels),
        f"{stem}.json": json_bytes(record),
    }


def test_a_label_map_is_cut_as_its_photo_and_keeps_its_labels() -> None:
    labels = np.zeros((300, 200), np.uint8)
    labels[100:220, 60:150] = 7
    pixels = np.repeat((labels > 0)[..., None] * np.uint8(255), 3, axis=2)
    decoder = PhotoBatches(96, 96)
    for orientation, encoded in ((1, pixels), (6, np.rot90(pixels)), (3, pixels[::-1, ::-1])):
        arrays = decoder.allocate(2)
        sample = Sample(0, "k", _members("000", np.ascontiguousarray(encoded), labels, orientation))
        decoder.decode(sample, arrays, 1)
        assert set(np.unique(arrays["masks"][1])) == {0, 7}
        white = arrays["images"][1, ..., 0] > 127
        assert (white == (arrays["masks"][1] == 7)).mean() > 0.97
        assert arrays["records"][1]["width"] == 200
        assert arrays["keys"] == [None, "k"]


def test_a_map_that_is_not_of_its_photo_is_refused() -> None:
    members = _members("000", _scene(40, 30), np.zeros((40, 31), np.uint8))
    decoder = PhotoBatches(16, 16)
    with pytest.raises(ValueError, match="label map of 31 × 40 px to a photo of 30 × 40 px"):
        decoder.decode(Sample(0, "k", members), decoder.allocate(1), 0)


def test_a_missing_member_is_named() -> None:
    decoder = PhotoBatches(16, 16, photo="")
    with pytest.raises(ValueError, match=r"no picture jpg"):
        decoder.decode(Sample(0, "k", {"txt": b""}), decoder.allocate(1), 0)
    with pytest.raises(ValueError, match=r"no member regions\.png"):
        decoder.decode(Sample(0, "k", {"jpg": _encoded(_scene(16, 16))}), decoder.allocate(1), 0)
    plain = PhotoBatches(16, 16, photo="", masks=False)
    arrays = plain.allocate(1)
    plain.decode(Sample(0, "k", {"jpg": _encoded(_scene(16, 16))}), arrays, 0)
    assert arrays["records"] == [None]


def test_a_pair_fills_both_sets_of_arrays() -> None:
    labels = np.zeros((40, 40), np.uint8)
    members = {
        **_members("002", np.full((40, 40, 3), 30, np.uint8), labels),
        **_members("005", np.full((40, 40, 3), 220, np.uint8), labels),
    }
    decoder = PairBatches(40, 40)
    arrays = decoder.allocate(1)
    decoder.decode(Pair(0, "k", 5, 2, members), arrays, 0)
    assert arrays["reference_images"].mean() == pytest.approx(220, abs=2)
    assert arrays["target_images"].mean() == pytest.approx(30, abs=2)


def test_memory_is_used_again_only_when_no_view_of_it_is_left() -> None:
    memory = BatchMemory()
    first = memory.take((4, 8), np.uint8)
    address, view = first.ctypes.data, first[1, 2:].T
    del first
    second = memory.take((4, 8), np.uint8)
    assert second.ctypes.data != address
    del view
    assert memory.take((8, 4), np.uint8).ctypes.data == address
