"""What of a photo becomes a target: least sizes, mirrored photos, cuts and colours drawn by sample."""

from typing import Any

import numpy as np
import pytest
import torch

from shards.reading.folder import DatasetFolder
from shards.reading.pairs import Pair, Pairs
from shards.reading.source import SkippedSampleError
from shards.reading.steps import Position
from tests.drawn_pairs import write_people
from tests.drawn_training import tiny
from training.pair_fields import Jitter, PairFields, members_for

SIZE = (64, 64)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Of photos of 96 × 80 and 48 × 40 px."""
    folder = write_people(tmp_path_factory.mktemp("jitters") / "shards", [(96, 80), (48, 40)])
    members = members_for(recipe_fields(), reconstruct=True)
    return Pairs(DatasetFolder(str(folder)), members=members)


def recipe_fields() -> Any:
    return tiny("visual_persona", denoising={"person_weight": 3.0}).fields(*SIZE)


def decoded(pair: Pair, **settings: Any) -> dict[str, Any]:
    decoder = PairFields(recipe_fields(), lambda text: np.zeros((2, 77), np.int64), SIZE, **settings)
    arrays = decoder.allocate(1)
    decoder.decode(pair, arrays, 0)
    return {name: array[0] for name, array in arrays.items()}


def of_large_target(pairs: Pairs) -> Pair:
    return next(pair for n in range(len(pairs)) if decoded(pair := pairs.read(n))["tally"] is None)


def test_a_target_smaller_than_the_least_size_is_left_out_and_one_that_is_blown_up_is_counted(
    pairs: Pairs,
) -> None:
    found = {}
    for number in range(len(pairs)):
        pair = pairs.read(number)
        short = decoded(pair)["target_cut"][:2].min()
        found[number] = short
        assert (decoded(pair)["tally"] == "upscaled") == (short < 64)
        decoder = PairFields(
            recipe_fields(), lambda text: np.zeros((2, 77), np.int64), SIZE, min_target_px=64
        )
        arrays = decoder.allocate(1)
        if short < 64:
            with pytest.raises(SkippedSampleError, match="a target of 40 px"):
                decoder.decode(pair, arrays, 0)
            assert arrays["tally"] == ["too_small"]
        else:
            decoder.decode(pair, arrays, 0)
            assert arrays["tally"] == [None]
    assert {80.0, 40.0} == set(found.values())


def test_a_mirrored_pair_is_mirrored_in_its_pictures_its_person_and_what_was_cut_off(pairs: Pairs) -> None:
    pair = of_large_target(pairs)
    plain, mirrored = decoded(pair), decoded(pair, jitter=Jitter(flip=1.0))
    assert np.array_equal(mirrored["target"], plain["target"][:, ::-1])
    assert np.array_equal(mirrored["person"], plain["person"][..., ::-1])
    assert not np.array_equal(mirrored["target"], plain["target"])
    # The middle is cut out: as much is cut off on both sides, to a pixel.
    assert mirrored["target_cut"] == pytest.approx(plain["target_cut"], abs=1)
    # Crops are cut out of the mirrored photo: the same but for the resizing of odd widths.
    difference = np.abs(mirrored["crops"].astype(int) - plain["crops"][:, :, ::-1].astype(int))
    assert np.median(difference[plain["visible"]]) <= 2
    assert np.array_equal(mirrored["visible"], plain["visible"])


def test_what_is_cut_off_on_the_right_of_a_photo_is_on_the_left_of_the_mirrored_one(pairs: Pairs) -> None:
    pair = of_large_target(pairs)
    shifted, mirrored = (decoded(pair, jitter=Jitter(flip=flip, crop=0.5)) for flip in (0.0, 1.0))
    _, width, _, left, _, right = shifted["target_cut"]
    scale = _scale(pair, shifted)
    assert mirrored["target_cut"][3] == pytest.approx(max(width * scale - right - left, 0), abs=1)
    assert np.array_equal(mirrored["target"], shifted["target"][:, ::-1])


def _scale(pair: Pair, shown: dict[str, Any]) -> float:
    """px of the target to one of its photo, by what the jitter keeps."""
    kept = Jitter(crop=0.5).draw(pair).zoom
    assert kept is not None
    height, width = shown["target_cut"][:2]
    return float(max(SIZE[0] / (height * kept[0]), SIZE[1] / (width * kept[0])))


def test_a_target_whose_caption_has_left_or_right_is_not_mirrored(pairs: Pairs) -> None:
    pair = of_large_target(pairs)
    name = f"{pair.target:03d}.json"
    told = pair._replace(
        members={**pair.members, name: pair.members[name].replace(b"waves", b"lifts her Left")}
    )
    plain, mirrored = decoded(told), decoded(told, jitter=Jitter(flip=1.0))
    assert np.array_equal(mirrored["target"], plain["target"])
    assert not np.array_equal(mirrored["crops"], plain["crops"])


def test_colours_change_alike_in_both_photos_and_black_stays_black(pairs: Pairs) -> None:
    pair = of_large_target(pairs)
    plain, changed = decoded(pair), decoded(pair, jitter=Jitter(colour=0.4))
    colours = Jitter(colour=0.4).draw(pair).colours
    assert colours is not None
    for name in ("target", "crops"):
        expected = np.clip(plain[name].astype(np.float64) @ colours.T.astype(np.float64), 0, 255)
        inside = plain[name].max(axis=-1) > 0
        assert np.median(np.abs(changed[name] - expected)[inside]) <= 2, name
        assert np.abs(changed[name].astype(int) - plain[name])[inside].mean() > 2, name
    assert not changed["crops"][~plain["visible"]].any()


def test_what_is_drawn_belongs_to_sample_seed_and_epoch_and_shares_are_kept(pairs: Pairs) -> None:
    jitter = Jitter(flip=0.3, crop=0.2, colour=0.1)
    pair = pairs.read(0)
    drawn = [jitter.draw(pair._replace(key=f"{n:04d}-a", epoch=1)) for n in range(2000)]
    assert np.mean([d.flips_target for d in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([d.flips_reference != d.flips_target for d in drawn]) == pytest.approx(0.42, abs=0.04)
    zooms = np.array([d.zoom for d in drawn])
    assert zooms.min(axis=0) == pytest.approx([0.8, 0, 0], abs=0.01)
    assert zooms.max() < 1
    again = jitter.draw(pair._replace(key="0007-a", epoch=1))
    assert again.zoom == drawn[7].zoom
    assert again.colours is not None
    assert drawn[7].colours is not None
    assert np.array_equal(again.colours, drawn[7].colours)
    assert jitter.draw(pair._replace(key="0007-a", epoch=2)).zoom != drawn[7].zoom
    # The pair of an epoch knows what it was drawn by.
    found = pairs.epoch(Position(5, 3)).read(0)
    assert (found.seed, found.epoch) == (5, 3)


def test_nothing_is_drawn_where_nothing_is_set(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pair_fields.streams", pytest.fail)
    pair = pairs.read(0)
    assert Jitter().draw(pair) == (False, False, None, None)
    assert torch.from_numpy(decoded(pair)["target"]).dtype == torch.uint8
