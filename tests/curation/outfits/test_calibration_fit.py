"""From labelled answers to cuts and weights: a figure is of the rule that runs, and of pairs enough."""

import numpy as np
import pytest

from curation.judging.fit import (
    calibration_error,
    choose_cut,
    fit_calibration,
    held_out,
    precision_at_least,
    reliability,
)
from curation.outfits.judge import Weights
from curation.settings.outfits import CalibrationSettings


def test_a_cut_between_scores_that_part_in_the_sixth_digit_has_the_precision_that_is_named() -> None:
    scores = np.array([0.999999, 0.999998, 0.999997, 0.999993, 0.999992, 0.999991])
    same = np.array([True, True, True, False, False, False])
    found = choose_cut(scores, same, 0.97, least_pairs=3)
    assert found["cut"] is not None
    assert same[scores >= found["cut"]].tolist() == [True, True, True]
    assert (found["precision"], found["recall"], found["accepted"]) == (1.0, 1.0, 3)


@pytest.mark.parametrize("digits", [1, 2, 6, 17])
def test_every_cut_accepts_exactly_what_its_figures_are_of(digits: int) -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        scores = np.round(1 - random.uniform(size=60) ** 9, digits)
        same = random.uniform(size=60) < scores
        found = choose_cut(scores, same, 0.8, least_pairs=5)
        if found["cut"] is None:
            continue
        accepted = scores >= found["cut"]
        assert accepted.sum() == found["accepted"] >= 5
        assert same[accepted].mean() >= 0.8
        assert found["recall"] == round(float(accepted[same].mean()), 4)


def test_pairs_that_are_never_accepted_move_no_cut_and_count_against_recall() -> None:
    scores = np.array([0.9, np.nan, 0.8, np.nan, 0.2])
    same = np.array([True, True, True, False, False])
    found = choose_cut(scores, same, 1.0, least_pairs=1)
    assert (found["cut"], found["accepted"], found["recall"]) == (0.8, 2, round(2 / 3, 4))
    nothing = choose_cut(np.full(5, np.nan), same, 0.5, least_pairs=1)
    assert (nothing["cut"], nothing["precision"]) == (None, None)


def test_one_pair_at_the_top_reaches_no_precision() -> None:
    scores, same = np.linspace(1, 0, 100), np.arange(100) % 3 == 0
    found = choose_cut(scores, same, 0.9)
    assert found["cut"] is None
    assert found["precision"] < 0.5
    assert choose_cut(scores, same, 0.9, least_pairs=1)["accepted"] == 1


def test_the_bound_of_a_precision_is_missed_by_one_draw_in_twenty() -> None:
    """Clopper and Pearson: at most 5 % of samples of a true precision of 0.9 have a bound above it."""
    random = np.random.default_rng(0)
    for pairs in (30, 100, 400):
        hits = random.binomial(pairs, 0.9, size=4000)
        missed = np.mean([precision_at_least(int(right), pairs) > 0.9 for right in hits])
        assert 0.01 < missed <= 0.055
    assert precision_at_least(30, 30) == pytest.approx(0.05 ** (1 / 30))
    assert precision_at_least(0, 30) == 0.0


def answers_of(seed: int, count: int, likeness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(said, alike, same) of pairs whose truth follows the rule that runs."""
    random = np.random.default_rng(seed)
    said, alike = random.normal(0, 3, count), random.uniform(0.3, 1.0, count)
    rule = Weights(CalibrationSettings(of="0" * 16, slope=0.8, likeness=max(likeness, 0.0), offset=-1.0))
    log_odds = np.array([rule.of_pair(x, c) for x, c in zip(said, alike, strict=True)])
    if likeness < 0:
        log_odds = log_odds + likeness * (alike - 0.65)
    return said, alike, random.uniform(size=count) < 1 / (1 + np.exp(-log_odds))


def test_held_out_probabilities_are_found_as_often_as_they_say() -> None:
    said, alike, same = answers_of(0, 4000, 0.7)
    log_odds = held_out(said, alike, same, [f"person {i % 200}" for i in range(4000)], "0" * 16)
    assert log_odds is not None
    assert calibration_error(reliability(1 / (1 + np.exp(-log_odds)), same)) < 0.03


def test_figures_of_other_people_are_of_the_rule_that_runs() -> None:
    """Where the judge leans to no the pair is not accepted, and colours never speak against likeness."""
    said, alike, same = answers_of(1, 400, 2.0)
    log_odds = held_out(said, alike, same, [f"person {i % 20}" for i in range(400)], "0" * 16)
    assert log_odds is not None
    assert log_odds[said <= 0].max() <= 0
    said, alike, same = answers_of(2, 400, -9.0)
    log_odds = held_out(said, alike, same, [f"person {i % 4}" for i in range(400)], "0" * 16, folds=2)
    assert log_odds is not None
    for fold in (0, 1):
        mine = np.arange(400) % 2 == fold
        order = np.argsort(said[mine & (said > 0)])
        assert (np.diff(log_odds[mine & (said > 0)][order]) >= 0).all()  # of the answer alone


def test_a_fit_says_the_weights_that_are_written_and_never_a_negative_one() -> None:
    said, alike, same = answers_of(3, 4000, 0.7)
    fitted = fit_calibration(said, alike, same, "f" * 16)
    assert (fitted.of, round(fitted.slope, 5)) == ("f" * 16, fitted.slope)
    assert fitted.slope == pytest.approx(0.8, rel=0.25)
    against = fit_calibration(*answers_of(4, 4000, -9.0), "f" * 16)
    assert against.likeness == 0.0
    senseless = fit_calibration(-said, alike, same, "f" * 16)
    assert senseless.slope > 0


def test_a_judge_that_cannot_tell_is_not_overruled_by_colours() -> None:
    rule = Weights(CalibrationSettings(of="0" * 16, slope=1.0, likeness=5.0, offset=-3.0))
    assert rule.of_pair(0.0, 1.0) <= 0 < rule.of_pair(0.1, 1.0)
