"""Regions of people: label maps, a SegFormer of random weights, and body proportions."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.people.atr import (
    ATR_LABELS,
    FACE,
    HAIR,
    LEFT_SHOE,
    PANTS,
    REGIONS,
    RIGHT_SHOE,
    UPPER,
    decode_map,
    encode_map,
    region_shares,
)
from curation.people.parse_geometric import GeometricParser
from curation.people.protocols import PersonView
from curation.people.transformers_backends import SegformerParser
from curation.settings.people import GeometricSettings, SegformerSettings
from tests.real_weights import model_at

HEAD, SHOES = (HAIR, FACE), (LEFT_SHOE, RIGHT_SHOE)

# Label maps and regions


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_a_label_map_comes_back_from_its_bytes_as_it_was(width: int, height: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 18, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(decode_map(encode_map(labels)), labels)


def test_a_mask_comes_back_from_its_bytes_as_it_was() -> None:
    mask = np.random.default_rng(0).random((40, 30)) > 0.5
    np.testing.assert_array_equal(decode_map(encode_map(mask)) > 0, mask)
    np.testing.assert_array_equal(decode_map(encode_map(mask.astype(np.uint8) * 255)) > 0, mask)


def test_bytes_that_are_no_map_are_an_error() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        decode_map(b"<html>not found</html>")


def test_every_label_but_background_and_bag_is_in_the_full_body_and_in_one_region() -> None:
    assert len(ATR_LABELS) == 18
    worn = [label for label, name in enumerate(ATR_LABELS) if name not in ("background", "bag")]
    assert list(REGIONS["full_body"]) == worn
    parts = [label for name, members in REGIONS.items() if name != "full_body" for label in members]
    assert sorted(parts) == worn


def test_region_shares_are_shares_of_the_mask_in_the_order_of_the_regions() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = FACE
    labels[1:4] = UPPER
    labels[4:8] = PANTS
    labels[8] = LEFT_SHOE
    mask = np.ones((10, 10), bool)
    mask[:, 8:] = False
    mask[9] = False
    shares = dict(zip(REGIONS, region_shares(labels, mask), strict=True))
    assert shares == pytest.approx(
        {"full_body": 1, "head": 1 / 9, "torso": 3 / 9, "legs": 4 / 9, "shoes": 1 / 9}
    )


def test_region_shares_of_an_empty_mask_are_zero() -> None:
    labels = np.full((4, 4), UPPER, np.uint8)
    assert region_shares(labels, np.zeros((4, 4), np.uint8)) == [0.0] * 5


# SegFormer


def write_segformer(folder: Path, labels: int) -> Path:
    import torch
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = SegformerConfig(
        num_labels=labels,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 16],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_segformer(tmp_path_factory.mktemp("segformer") / "tiny", labels=18)
    assert (folder / "model.safetensors").exists()
    return folder


@pytest.fixture
def broken_segformer(tiny_segformer: Path, tmp_path: Path) -> Path:
    """A copy for a test to break."""
    return Path(shutil.copytree(tiny_segformer, tmp_path / "broken"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    blocks = np.random.default_rng(3).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    picture = blocks.repeat(20, axis=0).repeat(20, axis=1)
    picture.flags.writeable = False
    return picture


def segformer(folder: Path, batch_size: int = 8) -> SegformerParser:
    return SegformerParser(
        SegformerSettings(model="weights", batch_size=batch_size), {"weights": model_at(folder)}
    )


def view(x0: int, y0: int, x1: int, y1: int) -> PersonView:
    """A person whose mask is an ellipse in the box."""
    ys, xs = np.mgrid[-1 : 1 : (y1 - y0) * 1j, -1 : 1 : (x1 - x0) * 1j]
    mask = (xs**2 + ys**2 <= 1).astype(np.uint8) * 255
    return PersonView(np.array([x0, y0, x1, y1]), mask, None, None)


def test_segformer_labels_every_person_in_the_size_of_the_box_and_nothing_outside_the_mask(
    tiny_segformer: Path, photo: np.ndarray
) -> None:
    people = [view(0, 0, 160, 200), view(10, 20, 75, 190), view(100, 50, 131, 83)]
    maps = segformer(tiny_segformer).parse(photo, people)
    for person, labels in zip(people, maps, strict=True):
        assert labels.dtype == np.uint8
        assert labels.shape == person.mask.shape
        assert labels.max() <= 17
        assert (labels[person.mask == 0] == 0).all()
    assert len(np.unique(maps[0])) > 2


def test_segformer_labels_a_person_the_same_in_any_batch(tiny_segformer: Path, photo: np.ndarray) -> None:
    people = [view(0, 0, 160, 200), view(10, 20, 75, 190), view(100, 50, 131, 83)]
    together = segformer(tiny_segformer).parse(photo, people)
    one_by_one = segformer(tiny_segformer, batch_size=1).parse(photo, people)
    for a, b in zip(together, one_by_one, strict=True):
        assert (a == b).mean() > 0.995  # floats differ in their last digits


@pytest.mark.parametrize(("width", "height"), [(40, 1), (40, 3), (1, 40), (3, 40), (1, 1)])
def test_segformer_labels_a_person_of_one_or_three_rows_as_such(
    tiny_segformer: Path, width: int, height: int
) -> None:
    mask = np.full((height, width), 255, np.uint8)
    person = PersonView(np.array([20, 30, 20 + width, 30 + height]), mask, None, None)
    rows = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    thin = np.zeros((120, 100, 3), np.uint8)
    thin[30 : 30 + height, 20 : 20 + width] = rows
    # The same pixels as rows twice as high: nothing about the crop may be taken for its channels.
    high = np.zeros((120, 100, 3), np.uint8)
    high[30 : 30 + 2 * height, 20 : 20 + width] = rows.repeat(2, axis=0)
    twice = np.full((2 * height, width), 255, np.uint8)
    twin = PersonView(np.array([20, 30, 20 + width, 30 + 2 * height]), twice, None, None)
    parser = segformer(tiny_segformer)
    labels = parser.parse(thin, [person])[0]
    assert labels.shape == (height, width)
    expected = parser.parse(high, [twin])[0]
    assert (labels.repeat(2, axis=0) == expected).mean() > 0.5


def test_a_segformer_with_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 19 labels, the 18 of ATR are needed"):
        segformer(write_segformer(tmp_path / "nineteen", labels=19))


def test_a_segformer_without_its_head_is_refused_and_not_filled_with_random_numbers(
    broken_segformer: Path,
) -> None:
    from safetensors.torch import load_file, save_file

    file = broken_segformer / "model.safetensors"
    body = {name: values for name, values in load_file(file).items() if "classifier" not in name}
    save_file(body, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights: decode_head\.classifier"):
        segformer(broken_segformer)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_segformer_with_a_missing_or_broken_file_is_refused_in_one_line(
    broken_segformer: Path, name: str
) -> None:
    (broken_segformer / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match="broken") as broken:
        segformer(broken_segformer)
    (broken_segformer / name).unlink()
    with pytest.raises(ConfigError, match="broken") as missing:
        segformer(broken_segformer)
    assert "\n" not in str(broken.value) + str(missing.value)


def test_a_segformer_whose_sizes_differ_from_its_config_is_refused_in_one_line(
    broken_segformer: Path,
) -> None:
    config = json.loads((broken_segformer / "config.json").read_text())
    config["decoder_hidden_size"] = 32
    (broken_segformer / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="broken") as error:
        segformer(broken_segformer)
    assert "\n" not in str(error.value)


# Body proportions

BOX = (200, 100, 440, 900)  # a person of 800 px, 8 heads of 100


def person(
    box: tuple[int, int, int, int] = BOX,
    face: tuple[float, float, float, float] | None = None,
    joints: dict[int, tuple[float, float]] | None = None,
) -> PersonView:
    """A person whose mask is the whole box; `joints` maps COCO's numbers to x and y of seen ones."""
    keypoints = None
    if joints is not None:
        keypoints = np.zeros((17, 3))
        keypoints[:, 2] = 0.1
        for joint, (x, y) in joints.items():
            keypoints[joint] = (x, y, 0.9)
    x0, y0, x1, y1 = box
    return PersonView(
        np.array(box),
        np.full((y1 - y0, x1 - x0), 255, np.uint8),
        keypoints,
        None if face is None else np.array(face),
    )


def parse(view: PersonView) -> np.ndarray:
    blank = np.zeros((1000, 700, 3), np.uint8)
    return GeometricParser(GeometricSettings(), {}).parse(blank, [view])[0]


def rows_of(labels: np.ndarray, members: tuple[int, ...]) -> np.ndarray:
    return np.nonzero(np.isin(labels, members).any(axis=1))[0]


# Nose, shoulders, hips and ankles of the person in BOX, standing.
STANDING = {
    0: (320.0, 160.0),
    5: (380.0, 240.0),
    6: (260.0, 240.0),
    11: (360.0, 480.0),
    12: (280.0, 484.0),
    15: (360.0, 850.0),
    16: (280.0, 846.0),
}
FACE_BOX = (285.0, 125.0, 355.0, 205.0)


@pytest.mark.parametrize("face", [FACE_BOX, None], ids=["with a face", "without a face"])
@pytest.mark.parametrize("joints", [None, STANDING], ids=["without joints", "with joints"])
def test_a_whole_person_has_head_above_torso_above_legs_above_shoes(
    face: tuple[float, float, float, float] | None, joints: dict[int, tuple[float, float]] | None
) -> None:
    labels = parse(person(face=face, joints=joints))
    bands = [rows_of(labels, members) for members in (HEAD, (UPPER,), (PANTS,), SHOES)]
    for upper, lower in itertools.pairwise(bands):
        # A chin may hang over a collar: the face is a box on top of the bands.
        assert upper.mean() < lower.mean()
        assert upper.max() <= lower.min() + 20
    heights = [len(band) / 800 for band in bands]
    assert heights == pytest.approx([0.13, 0.36, 0.42, 0.09], abs=0.07)
    assert (labels > 0).all()
    assert ((labels == FACE).any()) == (face is not None)


def test_left_and_right_shoe_stand_side_by_side() -> None:
    labels = parse(person(face=FACE_BOX))
    left, right = (np.nonzero((labels == shoe).any(axis=0))[0] for shoe in SHOES)
    assert len(left) == len(right) == 120
    assert left.max() < right.min()


def test_the_face_is_labelled_where_it_was_found() -> None:
    labels = parse(person(face=FACE_BOX))
    ys, xs = np.nonzero(labels == FACE)
    assert (xs.min() + 200, ys.min() + 100, xs.max() + 201, ys.max() + 101) == FACE_BOX


def test_a_face_that_reaches_over_the_box_is_cut_to_it() -> None:
    labels = parse(person(face=(180.0, 90.0, 260.0, 190.0)))
    ys, xs = np.nonzero(labels == FACE)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (0, 0, 60, 90)


def test_a_portrait_has_neither_legs_nor_shoes() -> None:
    labels = parse(person(box=(100, 50, 350, 350), face=(185.0, 75.0, 265.0, 175.0)))
    assert set(np.unique(labels)) == {HAIR, FACE, UPPER}


def test_legs_begin_at_the_hips_and_shoes_at_the_ankles_that_are_seen() -> None:
    for moved in (0.0, 60.0, -60.0):
        joints = {j: (x, y + moved if j in (11, 12) else y) for j, (x, y) in STANDING.items()}
        labels = parse(person(face=FACE_BOX, joints=joints))
        assert rows_of(labels, (PANTS,)).min() + 100 == pytest.approx(482 + moved, abs=1)
        assert rows_of(labels, SHOES).min() + 100 == pytest.approx(846, abs=1)
    raised = {**STANDING, 15: (360.0, 700.0)}
    assert rows_of(parse(person(joints=raised)), SHOES).min() + 100 == pytest.approx(700, abs=1)


@pytest.mark.parametrize("face", [FACE_BOX, None], ids=["with a face", "without a face"])
def test_nothing_is_claimed_below_hips_or_ankles_that_are_not_seen(
    face: tuple[float, float, float, float] | None,
) -> None:
    no_ankles = {j: at for j, at in STANDING.items() if j < 15}
    labels = parse(person(face=face, joints=no_ankles))
    assert (labels == PANTS).any()
    assert not np.isin(labels, SHOES).any()
    no_hips = {j: at for j, at in STANDING.items() if j < 11}
    assert not np.isin(parse(person(face=face, joints=no_hips)), (PANTS, *SHOES)).any()


def test_joints_below_the_score_count_as_not_seen() -> None:
    view = person(face=FACE_BOX, joints=STANDING)
    assert view.keypoints is not None
    view.keypoints[11:, 2] = 0.49
    assert not np.isin(parse(view), (PANTS, *SHOES)).any()
    view.keypoints[11:, 2] = 0.5
    assert {PANTS, *SHOES} <= set(np.unique(parse(view)))


def test_geometric_labels_keep_inside_the_mask() -> None:
    view = person(face=FACE_BOX)
    ys, xs = np.mgrid[-1:1:800j, -1:1:240j]
    view.mask[xs**2 + ys**2 > 1] = 0
    labels = parse(view)
    assert ((labels > 0) == (view.mask > 0)).all()
