"""Photos of every profile are seen in sRGB, by curation and by the trainer alike."""

import io
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.packing.group import as_wanted
from curation.photos.decode import decode_rgb
from curation.settings.groups import ShardsSettings
from shards.format.sample import PhotoMember
from shards.reading.decode import decode_photo
from tests import drawn_profiles as drawn

RED = np.array([220, 27, 42])  # in sRGB
SIDE = 48


def saved(levels: Any, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A photo of one colour."""
    pixels = np.empty((SIDE, SIDE, len(levels)), np.uint8)
    pixels[...] = np.round(levels)
    sink = io.BytesIO()
    if kind == "JPEG":
        options |= {"quality": 98, "subsampling": 0}
    Image.fromarray(pixels.squeeze(), mode=mode).save(sink, kind, lossless=True, **options)
    return sink.getvalue()


def in_space(colour: np.ndarray, primaries: drawn.Chromaticities, gamma: float | None = None) -> np.ndarray:
    """Levels of another space, 0 to 255, of a colour of sRGB."""
    light = (
        np.linalg.inv(drawn.to_connection(primaries))
        @ drawn.to_connection(drawn.REC709)
        @ drawn.linear(colour)
    )
    return drawn.levels(light) if gamma is None else 255 * np.clip(light, 0, 1) ** (1 / gamma)


def by_curation(data: bytes) -> np.ndarray:
    return decode_rgb(data)


def by_curation_at_a_smaller_scale(data: bytes) -> np.ndarray:
    return decode_rgb(data, SIDE // 4)


def in_a_slot_of_its_size(data: bytes) -> np.ndarray:
    slot = np.empty((SIDE, SIDE, 3), np.uint8)
    decode_photo(data, slot)
    return slot


def in_a_small_slot(data: bytes) -> np.ndarray:
    """With borders, which stay black."""
    slot = np.full((SIDE // 4, SIDE // 2, 3), 77, np.uint8)
    cut = decode_photo(data, slot, fit="contain")
    left, top, right, bottom = cut.target
    assert slot.sum() == slot[top:bottom, left:right].sum()
    return slot[top:bottom, left:right]


Decode = Callable[[bytes], np.ndarray]
DECODERS = [by_curation, by_curation_at_a_smaller_scale, in_a_slot_of_its_size, in_a_small_slot]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_photo_in_display_p3_is_seen_in_srgb(decode: Decode, kind: str) -> None:
    stored = in_space(RED, drawn.P3)
    assert np.abs(stored - (202, 52, 52)).max() < 1
    photo = decode(saved(stored, kind, icc_profile=drawn.rgb_profile(drawn.P3)))
    assert np.abs(photo.astype(int) - RED).max() <= 3
    assert np.abs(decode(saved(stored, kind)).astype(int) - stored).max() <= 3


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(drawn.ADOBE, 563 / 256), (drawn.P3, None), (drawn.REC709, 1.8)]
)
def test_colours_of_other_spaces_are_those_that_were_meant(
    primaries: drawn.Chromaticities, gamma: float | None
) -> None:
    profile = drawn.rgb_profile(primaries, gamma)
    for colour in ([220, 27, 42], [40, 160, 70], [20, 30, 200], [128, 128, 128], [250, 240, 10]):
        photo = by_curation(saved(in_space(np.array(colour), primaries, gamma), "PNG", icc_profile=profile))
        assert np.abs(photo.astype(int) - colour).max() <= 3


def test_what_srgb_does_not_have_is_clipped() -> None:
    wide = drawn.rgb_profile(drawn.PROPHOTO, 1.8, drawn.D50)
    assert by_curation(saved([0, 255, 0], "PNG", icc_profile=wide))[0, 0].tolist() == [0, 255, 0]
    assert by_curation(saved([255, 255, 255], "PNG", icc_profile=wide))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("decode", DECODERS)
def test_profiles_of_srgb_change_no_pixel(decode: Decode) -> None:
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    scene = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for profile in (theirs, drawn.rgb_profile(drawn.REC709)):
        sink, plain = io.BytesIO(), io.BytesIO()
        Image.fromarray(scene).save(sink, "JPEG", icc_profile=profile)
        Image.fromarray(scene).save(plain, "JPEG")
        assert np.array_equal(decode(sink.getvalue()), decode(plain.getvalue()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_grey_photo_is_seen_by_its_own_curve(decode: Decode, kind: str) -> None:
    data = saved([100], kind, "L", icc_profile=drawn.grey_profile(1.4))
    wanted = drawn.levels((100 / 255) ** 1.4)
    assert wanted > 130
    assert np.abs(decode(data) - wanted).max() <= 3


@pytest.mark.parametrize("decode", DECODERS)
def test_inks_are_seen_as_their_profile_mixes_them(decode: Decode) -> None:
    lab = {inks: (100 - 25 * sum(inks), 0, 0) for inks in product((0, 1), repeat=4)}
    lab[(1, 0, 0, 0)] = (60, -25, -30)
    data = saved([255, 0, 0, 0], "JPEG", "CMYK", icc_profile=drawn.ink_profile(lab))
    assert np.abs(decode(data) - drawn.srgb_of_lab((60, -25, -30))).max() <= 4
    assert np.abs(decode(saved([255, 0, 0, 0], "JPEG", "CMYK")) - np.array([0, 255, 255])).max() <= 4


@pytest.mark.parametrize("decode", DECODERS)
def test_a_transparent_photo_lies_on_white_in_its_colours(decode: Decode) -> None:
    stored = [*in_space(RED, drawn.P3), 255]
    data = saved(stored, "PNG", "RGBA", icc_profile=drawn.rgb_profile(drawn.P3))
    assert np.abs(decode(data).astype(int) - RED).max() <= 3
    stored[3] = 0
    assert (decode(saved(stored, "PNG", "RGBA", icc_profile=drawn.rgb_profile(drawn.P3))) == 255).all()


def broken_profiles() -> dict[str, bytes]:
    good = drawn.rgb_profile(drawn.P3)
    curve = good.index(b"rTRC") + 4  # where it lies, and its length
    noise = np.random.default_rng(3).bytes
    return {
        "cut": good[:200],
        "only a header": good[:128],
        "of noise": noise(3000),
        "noise behind its header": good[:128] + noise(3000),
        "that points out of itself": good[:curve] + b"\xff" * 8 + good[curve + 8 :],
        "of countless tags": good[:128] + b"\xff" * 4 + good[132:],
        "of zeros": bytes(600),
        "of grey": drawn.grey_profile(1.4),
        "of other bytes": b"<html>",
    }  # fmt: skip


@pytest.mark.parametrize("what", broken_profiles())
@pytest.mark.parametrize("decode", [by_curation, in_a_slot_of_its_size])
def test_a_profile_that_is_broken_or_of_another_kind_counts_as_none(decode: Decode, what: str) -> None:
    data = saved(RED, "JPEG", icc_profile=broken_profiles()[what])
    assert np.array_equal(decode(data), decode(saved(RED, "JPEG")))


def test_a_profile_larger_than_any_device_has_counts_as_none() -> None:
    data = saved(RED, "WEBP", icc_profile=drawn.rgb_profile(drawn.P3).ljust(5 * 2**20, b"\0"))
    assert np.array_equal(by_curation(data), by_curation(saved(RED, "WEBP")))


def test_a_photo_wanted_in_srgb_is_encoded_anew_and_needs_no_profile() -> None:
    data = saved(in_space(RED, drawn.P3), "JPEG", icc_profile=drawn.rgb_profile(drawn.P3))
    places = dict.fromkeys(("box", "face_box", "face_points", "keypoints"))
    record = {"width": SIDE, "height": SIDE, "orientation": 1, **places}
    made = as_wanted(
        PhotoMember(data, "jpeg", record, np.zeros((SIDE, SIDE), np.uint8)),
        ShardsSettings(colours="srgb", jpeg_quality=98),
    )
    image = Image.open(io.BytesIO(made.data))
    assert "icc_profile" not in image.info
    assert np.abs(np.asarray(image, int) - RED).max() <= 3
    assert made.record["reencoded"] == ["colours"]
