"""Groups on their way into shards: shards of one size, and photos that are made smaller once."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from curation.ledger import kept
from curation.packing.group import as_wanted
from curation.packing.plan import PlannedGroup, plan_shards
from curation.photos.decode import decode_rgb
from curation.settings.groups import ShardsSettings
from shards.format.sample import PhotoMember
from tests.drawn_metadata import saved
from tests.drawn_rights import PACKETS, PLACES, packet

MIB = 2**20


def groups_of(sizes: list[int]) -> list[PlannedGroup]:
    return [PlannedGroup(f"{place:06d}", 0, 2, size, kept()) for place, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.integers(0, 3 * MIB), max_size=60),
    max_groups=st.integers(1, 20),
    max_mib=st.floats(0.5, 8),
)
def test_every_group_has_its_place_in_order_and_no_shard_is_too_large(
    sizes: list[int], max_groups: int, max_mib: float
) -> None:
    shards = plan_shards(groups_of(sizes), ShardsSettings(max_groups=max_groups, max_shard_mib=max_mib))
    assert [group for shard in shards for group in shard.groups] == groups_of(sizes)
    for shard in shards:
        assert 1 <= len(shard.groups) <= max_groups
        assert shard.n_bytes == sum(group.n_bytes for group in shard.groups)
        assert shard.n_bytes <= max_mib * MIB or len(shard.groups) == 1


def test_shards_are_of_about_one_size() -> None:
    sizes = np.random.default_rng(3).integers(100_000, 400_000, 1030).tolist()
    shards = plan_shards(groups_of(sizes), ShardsSettings(max_groups=1000, max_shard_mib=50))
    assert len(shards) == -(-sum(sizes) // (50 * MIB))
    ends = np.cumsum([0, *(shard.n_bytes for shard in shards)])
    target = sum(sizes) / len(shards)
    assert all(abs(stop - start - target) <= max(sizes) for start, stop in pairwise(ends))


def photo_of(width: int, height: int, orientation: int) -> PhotoMember:
    """A photo whose left half is red when upright, with a box around that half."""
    upright = np.zeros((height, width, 3), np.uint8)
    upright[:, : width // 2, 0] = 255
    stored = np.rot90(upright, 1) if orientation == 6 else upright  # 6: to be turned clockwise by a quarter
    image, sink = Image.fromarray(stored), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(sink, format="JPEG", quality=95, exif=exif)
    record = {
        "width": width, "height": height, "orientation": orientation, "photo_id": "f" * 64,
        "box": [0.0, 0.0, width / 2, float(height)],
        "keypoints": [width / 4, height / 2, 0.75] * 17,
        "face_box": [1.0, 2.0, 3.0, 4.0], "face_points": None,
    }  # fmt: skip
    labels = np.zeros((height, width), np.uint8)
    labels[:, : width // 2] = 4
    return PhotoMember(sink.getvalue(), "jpeg", record, labels)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_made_smaller_is_upright_and_its_record_and_labels_fit_it(orientation: int) -> None:
    made = as_wanted(photo_of(400, 300, orientation), ShardsSettings(max_side_px=100))
    image = Image.open(io.BytesIO(made.data))
    assert image.size == (100, 75) == (made.record["width"], made.record["height"])
    assert made.labels.shape == (75, 100)
    assert image.getexif().get(0x0112, 1) == made.record["orientation"] == 1
    pixels = np.asarray(image)
    assert pixels[:, :45, 0].min() > 200
    assert pixels[:, 55:, 0].max() < 60
    assert (made.labels[:, :50] == 4).all()
    assert made.record["box"] == [0, 0, 50, 75]
    assert made.record["keypoints"][:3] == [25, 37.5, 0.75]
    assert made.record["face_points"] is None
    assert made.record["resized_from"] == [400, 300]
    assert made.record["photo_id"] == "f" * 64


def test_a_photo_that_is_small_enough_keeps_its_bytes_where_metadata_may_stay() -> None:
    photo = photo_of(80, 100, 6)
    assert as_wanted(photo, ShardsSettings(max_side_px=100, metadata="keep")) is photo


def test_a_photo_is_packed_without_its_metadata_and_its_record_says_what_went() -> None:
    photo = photo_of(80, 100, 6)
    told = replace(photo, data=photo.data + b"a film behind it")
    made = as_wanted(told, ShardsSettings())
    assert len(made.data) < len(told.data)
    assert b"a film" not in made.data
    assert set(made.record["stripped"]) == {"exif", "behind the picture"}
    assert made.record["photo_id"] == "f" * 64
    assert np.array_equal(decode_rgb(made.data), decode_rgb(told.data))
    assert made.labels is photo.labels


def test_a_photo_that_carries_nothing_is_packed_as_it_was_collected() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (70, 90)).save(sink, "JPEG")
    photo = replace(photo_of(70, 90, 1), data=sink.getvalue())
    assert as_wanted(photo, ShardsSettings()) is photo


def test_a_profile_that_changes_no_colour_goes_without_encoding_where_srgb_is_wanted() -> None:
    sink = io.BytesIO()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (70, 90)).save(sink, "JPEG", icc_profile=icc)
    made = as_wanted(replace(photo_of(70, 90, 1), data=sink.getvalue()), ShardsSettings(colours="srgb"))
    assert set(made.record["stripped"]) == {"profile"}
    assert "reencoded" not in made.record


def test_what_a_photo_stated_is_kept_in_its_record_where_its_metadata_goes() -> None:
    told = replace(photo_of(56, 40, 1), data=PLACES["jpeg"](PACKETS["prohibited, element"][0]))
    for settings in (ShardsSettings(), ShardsSettings(max_side_px=64), ShardsSettings(metadata="keep")):
        marks = as_wanted(told, settings).record.get("stated_marks")
        kept = {"mining": "plus:DataMining DMI-PROHIBITED", "reserved": True}
        assert marks == (None if settings.metadata == "keep" else kept)


def test_what_a_photo_states_today_and_what_its_record_keeps_are_joined_so_that_neither_lets_it_in() -> None:
    today = PLACES["jpeg"](
        packet(
            "<plus:DataMining>DMI-PROHIBITED</plus:DataMining>",
            'ext:DigitalSourceType="trainedAlgorithmicMedia"',
        )
    )
    out = {
        "mining": "plus:DataMining DMI-PROHIBITED",
        "reserved": True,
        "source_type": "trainedAlgorithmicMedia",
    }
    for before, joined in (
        ({"mining": "plus:DataMining DMI-ALLOWED", "source_type": "digitalCapture"}, out),
        ({"mining": None, "reserved": False, "source_type": ["?"]}, out),
        ("no object", out),
        (
            {"mining": "tdm:reservation 1", "reserved": True, "source_type": "algorithmicMedia"},
            {"mining": "tdm:reservation 1", "reserved": True, "source_type": "algorithmicMedia"},
        ),
        ({"broken": "claim is damaged"}, {**out, "broken": "claim is damaged"}),
    ):
        photo = replace(photo_of(56, 40, 1), data=today)
        photo = replace(photo, record={**photo.record, "stated_marks": before})
        assert as_wanted(photo, ShardsSettings()).record["stated_marks"] == joined


def test_a_photo_that_cannot_be_taken_apart_is_encoded_anew() -> None:
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 56, 3), np.uint8))
    data = bytearray(saved(picture, "WEBP", save_all=True, append_images=[picture.rotate(180)]))
    at = data.index(b"VP8X") + 12
    data[at : at + 3] = (63).to_bytes(3, "little")  # a canvas that the first frame does not fill
    made = as_wanted(replace(photo_of(64, 40, 1), data=bytes(data), format="webp"), ShardsSettings())
    assert (made.format, made.record["reencoded"]) == ("jpeg", ["metadata"])
    assert decode_rgb(made.data).shape == (40, 64, 3)
