"""Only pixels go into shards: metadata of every container goes, and no pixel moves."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from shards.format.colour import bare_profile, conversion_of
from shards.format.embedded import embedded_in
from shards.format.orientation import orientation_of
from shards.format.stripped import without_metadata
from tests import drawn_profiles
from tests.drawn_metadata import (
    SECRETS,
    Case,
    cases,
    drawn_photos,
    exif,
    found_in,
    planted,
    profile,
    riff,
    saved,
    segment,
    with_tags,
)
from tests.hostile.pictures import base, png_chunk
from tests.metadata import tried

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of metadata that is planted with little care
DRAWN = {case.name: case for case in cases(1, [])}
PLAIN = {name: data for name, data, _ in drawn_photos(1)}
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 56, 3), np.uint8))


@pytest.mark.parametrize("name", DRAWN)
def test_no_secret_is_left_and_no_pixel_moves_in_any_container(name: str) -> None:
    result = tried(DRAWN[name])
    assert len(result.planted) >= 9
    assert result.is_right, result


@pytest.mark.parametrize("name", [name for name in PLAIN if "animated" not in name and "two" not in name])
def test_a_photo_without_metadata_stays_byte_for_byte(name: str) -> None:
    made = without_metadata(PLAIN[name])
    assert made.data == PLAIN[name]
    assert not made.gone


def test_what_went_is_told_by_kind_and_in_bytes() -> None:
    comment = segment(0xFE, b"by Ann")
    data = saved(PICTURE, "JPEG")
    made = without_metadata(data[:2] + comment + data[2:] + b"a film")
    assert made.data == data
    assert made.gone == {"comment": len(comment), "behind the picture": 6}


def test_a_second_picture_of_a_phone_goes_with_its_directory() -> None:
    other = PICTURE.rotate(180)
    data = saved(PICTURE, "MPO", save_all=True, append_images=[other], quality=95)
    made = without_metadata(data)
    assert made.data.count(b"\xff\xd8\xff") == 1
    assert b"MPF\0" not in made.data
    assert {"mpf", "behind the picture"} <= set(made.gone)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_block_of_the_orientation_alone_is_not_made_larger(kind: str, orientation: int) -> None:
    tag = struct.pack(
        "<2sHIHHHIHH", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0
    )  # without what should follow
    data = saved(PICTURE, kind, exif=b"Exif\0\0" + tag)
    made = without_metadata(data)
    assert len(made.data) <= len(data)
    assert orientation_of(made.data) == orientation


def test_an_orientation_that_only_xmp_states_is_kept_as_exif() -> None:
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:rights="Ann"/></x:xmpmeta>'
    made = without_metadata(saved(PICTURE, "JPEG", xmp=packet))
    assert embedded_in(made.data).xmp is None
    assert orientation_of(made.data) == 6
    assert b"Ann" not in made.data


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_broken_photo_is_an_error_and_never_another_picture(kind: str) -> None:
    data = planted(base(kind, 0), 6)
    whole = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    for stop in range(12, len(data), max(len(data) // 60, 1)):
        try:
            made = without_metadata(data[:stop])
        except (ValueError, OSError, SyntaxError):
            continue
        assert Image.open(io.BytesIO(made.data)).convert("RGB").tobytes() == whole


def test_an_animated_webp_whose_first_frame_fills_it_not_is_refused() -> None:
    data = bytearray(saved(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(180)]))
    at = data.index(b"ANMF") + 8
    data[at : at + 3] = (1).to_bytes(3, "little")
    with pytest.raises(ValueError, match="does not fill its canvas"):
        without_metadata(bytes(data))


def test_bytes_of_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="no JPEG, PNG or WebP"):
        without_metadata(saved(PICTURE, "GIF"))


PROFILES = {
    "P3": drawn_profiles.rgb_profile(drawn_profiles.P3),
    "Adobe": drawn_profiles.rgb_profile(drawn_profiles.ADOBE, 2.2),
    "grey": drawn_profiles.grey_profile(1.8),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_loses_its_texts_and_converts_colours_as_before(name: str) -> None:
    told = with_tags(PROFILES[name], {b"mmod": SECRETS["serial"], b"dmnd": SECRETS["author"]})
    bare = bare_profile(told)
    assert bare is not None
    assert not found_in(bare)
    assert b"none" in bare  # the copyright notice of its maker
    kind = "L" if name == "grey" else "RGB"
    picture = PICTURE.convert(kind)
    before, after = conversion_of(told, kind), conversion_of(bare, kind)
    assert before is not None
    assert after is not None
    assert np.array_equal(np.asarray(before.image(picture)), np.asarray(after.image(picture)))


def test_a_profile_of_several_segments_stays_whole() -> None:
    large = with_tags(profile(secret=False), {b"A2B0": bytes(150_000)})
    made = without_metadata(saved(PICTURE, "JPEG", icc_profile=large))
    kept = embedded_in(made.data).profile
    assert kept == bare_profile(large)
    assert kept is not None
    assert len(kept) > 150_000


def test_what_calls_itself_a_profile_and_is_none_goes() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        made = without_metadata(saved(PICTURE, kind, icc_profile=SECRETS["profile"] * 20))
        assert not found_in(made.data)
        assert "profile" in made.gone


def test_case_for_case_another_secret_would_be_found() -> None:
    """The search itself: what it looks for is there before."""
    everywhere = set[str]().union(*(case.secrets for case in DRAWN.values()))
    assert everywhere == set(SECRETS)
    assert isinstance(next(iter(DRAWN.values())), Case)
    assert exif(6)
    assert found_in(png_chunk(b"tEXt", b"a\0" + SECRETS["author"])) == {"author"}


def _hidden() -> dict[str, bytes]:
    """Photos with a secret in places that specifications do not give, all of which Pillow decodes."""
    secret = SECRETS["private"] * 9
    jpeg, scans, png = saved(PICTURE, "JPEG"), saved(PICTURE, "JPEG", progressive=True), saved(PICTURE, "PNG")
    at, end = scans.rfind(b"\xff\xda"), len(png) - 12
    plain = saved(PICTURE, "WEBP")[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in PICTURE.size)
    webp = riff(b"VP8X", bytes(4) + sides) + riff(b"ALPH", secret) + plain
    found = {
        "DNL in front": jpeg[:2] + segment(0xDC, secret) + jpeg[2:],
        "DNL between scans": scans[:at] + segment(0xDC, secret) + scans[at:],
        "IEND": png[:end] + png_chunk(b"IEND", secret),
        "IHDR": png[:8] + png_chunk(b"IHDR", png[16:29] + secret) + png[33:],
        "pixels behind a text": png[:end]
        + png_chunk(b"tEXt", b"a\0b")
        + png_chunk(b"IDAT", secret)
        + png[end:],
        "ALPH": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
    }
    for name in (b"cLLI", b"mDCV", b"cICP", b"sBIT", b"gAMA", b"cHRM", b"sRGB", b"tRNS", b"PLTE"):
        # Long enough for what Pillow reads of it; a palette has three bytes a colour.
        content = (bytes(32) + secret)[: 32 + len(secret) // 3 * 3 - 2]
        found[name.decode()] = png[:33] + png_chunk(name, content) + png[33:]
    return found


@pytest.mark.parametrize("name", _hidden())
def test_what_stands_behind_the_length_of_a_segment_or_chunk_goes(name: str) -> None:
    data = _hidden()[name]
    assert found_in(data) == {"private"}
    made = without_metadata(data)
    assert not found_in(made.data)
    assert made.gone
    assert without_metadata(made.data).data == made.data


def test_a_segment_that_is_cut_behind_the_picture_goes() -> None:
    data = saved(PICTURE, "JPEG")
    made = without_metadata(data[:-2] + b"\xff\xe1\xff\xff")
    assert made.data == data
    assert made.gone == {"other": 4}


def test_a_change_of_a_byte_that_pads_a_chunk_is_told_too() -> None:
    drawn = (saved(PICTURE.resize((side, 9)), "WEBP", lossless=True) for side in range(9, 60))
    data = next(data for data in drawn if data[16] % 2)
    made = without_metadata(data[:-1] + b"!")
    assert made.data == data
    assert made.gone == {"other": 1}


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("name", ["", "Anna", "Anna Meier SN 4711 iMac 21"])
def test_the_name_of_a_display_goes_from_a_profile_of_the_least_size(version: int, name: str) -> None:
    """Its channels share a curve, and it has no tag but those it must have."""
    told = _least_profile(version, name)
    for kind in ("JPEG", "PNG", "WEBP"):
        made = without_metadata(saved(PICTURE, kind, icc_profile=told))
        kept = embedded_in(made.data).profile
        assert kept is not None
        assert len(kept) <= len(told)
        assert "Anna".encode("utf-16-be") not in kept
        assert b"SERI" not in kept
        assert conversion_of(kept, "RGB") is not None
        assert without_metadata(made.data).data == made.data


def _least_profile(version: int, name: str) -> bytes:
    plain = drawn_profiles.rgb_profile(drawn_profiles.P3)
    text = name.encode("utf-16-be")
    described = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {}
    for at in range(132, 132 + 12 * int.from_bytes(plain[128:132], "big"), 12):
        tag, start, size = struct.unpack_from(">4sII", plain, at)
        tags[tag] = described if tag == b"desc" else plain[start : start + size]
    start, body, table, places = 132 + 12 * len(tags), b"", b"", dict[bytes, int]()
    for tag, content in tags.items():
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, places[content], len(content))
    head = struct.pack(">I", start + len(body)) + plain[4:8] + bytes([version]) + plain[9:48] + b"SERI"
    return head + plain[52:128] + struct.pack(">I", len(tags)) + table + body
