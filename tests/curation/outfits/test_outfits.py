"""Outfits: the paper's protocol over any judge, the judge of appearances, and its calibration."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.judging.fit import choose_cut, platt
from curation.outfits.appearance_judge import AppearanceJudge
from curation.outfits.judge import Answer
from curation.outfits.strategy import Verdicts, paper_protocol
from curation.people.appearance import BINS, CLOTHED
from curation.settings.outfits import AppearanceJudgeSettings, PaperStrategy
from tests.drawn_judge import drive
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, persona, photos_with_people, settings, write_config


def protocol(outfits: list[int], seed: int = 0, broken: frozenset[int] = frozenset()) -> Verdicts:
    """Runs the paper's protocol with a judge that knows the truth; `broken` photos have no answer."""
    strategy = paper_protocol(len(outfits), np.random.default_rng(seed), PaperStrategy(), min_photos=2)

    def answer(a: int, b: int) -> Answer:
        if {a, b} & broken:
            return Answer(None, error="no answer")
        return Answer(outfits[a] == outfits[b], float(outfits[a] == outfits[b]), 0.5)

    return drive(strategy, lambda ask: answer(ask.a, ask.b))


def test_a_person_in_one_outfit_is_kept_whole_with_one_question_a_photo() -> None:
    found = protocol([1] * 6)
    assert found.outfits == ["a"] * 6
    assert len(found.asked) == 5


def test_a_person_whose_two_random_photos_differ_is_dropped_with_every_photo_answered() -> None:
    dropped = [protocol([1, 2], seed) for seed in range(3)]
    for found in dropped:
        assert found.person.reason == "outfit_differs"
        assert [outcome.verdict for outcome in found.photos] == ["rejected"] * 2


def test_the_protocol_keeps_a_person_with_the_probability_of_two_equal_draws() -> None:
    """Two equal outfits of 20 photos: sum of squared shares is a half, minus drawing one photo twice."""
    kept = sum(protocol([1] * 20 + [2] * 20, seed).person.verdict == "kept" for seed in range(400))
    assert kept / 400 == pytest.approx(19 / 39, abs=0.08)


def test_photos_of_another_outfit_are_refined_away() -> None:
    for seed in range(20):
        found = protocol([1] * 8 + [2], seed)
        if found.person.verdict == "kept":
            assert found.outfits == ["a"] * 8 + [None]
            assert found.photos[8].reason == "other_outfit"


def test_a_photo_that_the_judge_cannot_answer_for_is_failed_and_not_rejected() -> None:
    found = protocol([1] * 5, 3, broken=frozenset([4]))
    assert "failed" in {found.person.verdict, found.photos[4].verdict}
    assert "rejected" not in {outcome.verdict for outcome in found.photos}


def test_a_single_photo_makes_no_group() -> None:
    found = protocol([1])
    assert (found.person.reason, found.asked) == ("too_few_photos", [])


@pytest.mark.parametrize(("rule", "kept"), [("any", True), ("majority", False), ("all", False)])
def test_the_rule_of_the_window_decides_over_its_answers(rule: str, kept: bool) -> None:
    """The last photo resembles one of two photos in its window."""
    strategy = paper_protocol(
        3, np.random.default_rng(0), PaperStrategy(window=2, rule=rule), 2  # type: ignore[arg-type]
    )  # fmt: skip
    alike: list[bool] = []

    def answer(a: int, b: int) -> Answer:
        alike.append(len(alike) != 1)
        return Answer(alike[-1], 1.0, 0.5)

    found = drive(strategy, lambda ask: answer(ask.a, ask.b))
    assert found.outfits.count("a") == (3 if kept else 2)


def vector(**regions: int) -> dict[str, bytes]:
    """A person whose named regions have all their colour in one bin."""
    rows = np.zeros((len(CLOTHED), BINS), "<f2")
    for name, place in regions.items():
        rows[list(CLOTHED).index(name), place] = 1
    return {"appearance": rows.tobytes()}


def judge(**changes: object) -> AppearanceJudge:
    return AppearanceJudge(AppearanceJudgeSettings.model_validate(changes), {})


def test_the_worst_region_decides() -> None:
    same_trousers = judge().ask([(vector(torso=1, legs=5), vector(torso=2, legs=5))])[0]
    assert (same_trousers.same, same_trousers.score) == (False, 0.0)
    assert judge().ask([(vector(torso=1, legs=5), vector(torso=1, legs=5))])[0].same is True


def test_a_region_that_one_photo_does_not_show_is_unknown_and_never_same() -> None:
    full, portrait = vector(torso=1, legs=5, shoes=9), vector(torso=1)
    assert judge().ask([(full, portrait)])[0].same is True
    assert judge(min_regions=2).ask([(full, portrait)])[0].same is None
    assert judge().ask([(vector(legs=5), vector(torso=1))])[0].same is None


def test_the_cut_reaches_the_wanted_precision_with_the_most_recall() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    same = np.array([True, True, False, True, True, False])
    assert choose_cut(scores, same, 1.0, least_pairs=1)["cut"] == 0.8
    at_80 = choose_cut(scores, same, 0.8, least_pairs=1)
    assert (at_80["cut"], at_80["precision"], at_80["recall"]) == (0.5, 0.8, 1.0)


def test_no_cut_is_named_where_none_reaches_the_precision() -> None:
    found = choose_cut(np.array([0.9, 0.8]), np.array([False, True]), 0.9, least_pairs=1)
    assert found["cut"] is None
    assert found["precision"] == 0.5


def test_platt_curve_gives_the_shares_that_scores_have() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 20_000)
    same = random.uniform(size=20_000) < 1 / (1 + np.exp(-(8 * scores - 4)))
    slope, offset = platt(scores, same)
    assert slope == pytest.approx(8, rel=0.08)
    assert offset == pytest.approx(-4, rel=0.08)


def test_a_calibrated_cut_keeps_its_precision_on_people_it_has_not_seen(tmp_path: Path) -> None:
    labels = {}
    for name, seed in (("seen", 31), ("unseen", 32)):
        drawn = collection(seed, people=70, photos=2)
        config = write_config(tmp_path / "p.yaml", settings(write_folder(tmp_path / name, drawn)))
        curate(config, tmp_path / f"run-{name}")
        labels[name] = [
            (a.name, b.name, a.outfit == b.outfit)
            for i, a in enumerate(drawn)
            for b in drawn[:i]
            if a.person == b.person
        ]
    file = tmp_path / "seen.csv"
    file.write_text("a,b,same\n" + "".join(f"{a},{b},{int(s)}\n" for a, b, s in labels["seen"]))
    done = persona("judge", "calibrate", tmp_path / "run-seen", "--precision", "0.97", "--pairs", file)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["precision"] >= 0.97
    assert result["recall"] > 0.5
    photos = photos_with_people(tmp_path / "run-unseen")
    pairs = [(photos[a]["people"][0], photos[b]["people"][0]) for a, b, _ in labels["unseen"]]
    answers = judge(cut=result["cut"]).ask(pairs)
    accepted = [same for (_, _, same), answer in zip(labels["unseen"], answers, strict=True) if answer.same]
    assert len(accepted) > 70
    assert sum(accepted) / len(accepted) >= 0.92


def test_calibrating_without_a_file_of_pairs_is_one_line(tmp_path: Path, photos: Path) -> None:
    config = write_config(tmp_path / "p.yaml", settings(photos))
    curate(config, tmp_path / "run")
    done = persona("judge", "calibrate", tmp_path / "run", "--pairs", tmp_path / "nowhere.csv")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
