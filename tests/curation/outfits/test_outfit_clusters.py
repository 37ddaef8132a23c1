"""The strategy `clusters`: every outfit its own group, few questions, and no photo without an answer."""

from dataclasses import replace

import numpy as np
import pytest

from curation.outfits.clusters import letters, outfit_clusters
from curation.outfits.judge import Answer, from_regions
from curation.outfits.strategy import Ask, Verdicts, paper_protocol
from curation.settings.outfits import CalibrationSettings, ClustersStrategy, PaperStrategy
from tests.drawn_judge import DrawnPerson, drawn_person, drive, pairs_of

# Fitted on 300 people of other seeds, as `persona judge calibrate` fits.
CALIBRATION = CalibrationSettings(of="0" * 16, slope=0.64, likeness=3.75, offset=-9.05)
RIGHT = {"false_same": 0.0, "false_other": 0.0, "false_hard": 0.0}


def clustered(person: DrawnPerson, ids: list[str] | None = None, **settings: object) -> Verdicts:
    names = ids or [f"{number:04d}" for number in range(len(person.outfits))]
    strategy = ClustersStrategy.model_validate({"backend": "clusters", **settings})
    return drive(outfit_clusters(names, person.alike, strategy, 2, asks_regions=False), person.answer)


def by_paper(person: DrawnPerson) -> Verdicts:
    random = np.random.default_rng([person.seed, 9])
    return drive(paper_protocol(len(person.outfits), random, PaperStrategy(), 2), person.answer)


def test_a_judge_that_is_right_gives_every_outfit_as_a_group_and_singles_a_reason() -> None:
    for seed in range(20):
        person = drawn_person(seed, 12, 4, **RIGHT)
        found = clustered(person)
        sizes = [person.outfits.count(outfit) for outfit in person.outfits]
        assert pairs_of(found.outfits) == pairs_of(person.outfits)
        for photo, size in enumerate(sizes):
            outcome = found.photos[photo]
            assert (outcome.verdict, outcome.reason) == (
                ("kept", "") if size > 1 else ("rejected", "too_few_photos")
            )


@pytest.mark.parametrize(("photos", "outfits"), [(6, 2), (12, 3), (24, 4)])
def test_with_a_judge_that_errs_it_finds_many_times_the_papers_pairs_at_no_less_precision(
    photos: int, outfits: int
) -> None:
    """The judge of people-pairs: 3 % false same, 5 % false different, 15 % of outfit pairs share garments."""
    ours: list[tuple[int, int]] = []
    theirs: list[tuple[int, int]] = []
    wanted: list[int] = []
    calls = 0
    for seed in range(120):
        person = drawn_person(1000 + seed, photos, outfits)
        true = pairs_of(person.outfits)
        wanted.append(len(true))
        clusters, paper = clustered(person, calibration=CALIBRATION), by_paper(person)
        calls += len(clusters.asked)
        for verdicts, into in ((clusters, ours), (paper, theirs)):
            got = pairs_of(verdicts.outfits)
            into.append((len(got & true), len(got)))
    (right, all_), (paper_right, paper_all) = np.sum(ours, axis=0), np.sum(theirs, axis=0)
    assert right >= 2 * paper_right
    assert right / all_ >= max(paper_right / paper_all, 0.99)
    assert right / sum(wanted) >= 0.85
    assert calls / (120 * photos) <= 2.4


def test_the_order_in_which_photos_arrive_changes_nothing() -> None:
    for seed in range(10):
        person = drawn_person(seed, 10, 3, **RIGHT)
        names = [f"{number:04d}" for number in range(10)]
        first = dict(zip(names, clustered(person, names).outfits, strict=True))
        turn = [int(place) for place in np.random.default_rng(seed).permutation(10)]
        turned = replace(
            person, outfits=[person.outfits[p] for p in turn], alike=person.alike[np.ix_(turn, turn)]
        )
        again = clustered(turned, [names[p] for p in turn])
        same = {frozenset((a, b)) for a in first for b in first if first[a] == first[b] is not None}
        found = dict(zip([names[p] for p in turn], again.outfits, strict=True))
        assert same == {frozenset((a, b)) for a in found for b in found if found[a] == found[b] is not None}


def test_outfits_that_look_nothing_alike_are_never_asked_about() -> None:
    person = drawn_person(3, 8, 2, hard_share=0.0, **RIGHT)
    worn = np.array(person.outfits)
    alike = np.where(worn[:, None] == worn, 0.95, 0.1)
    found = clustered(replace(person, alike=alike), low_cut=0.3)
    assert all(person.outfits[ask.a] == person.outfits[ask.b] for ask, _ in found.asked)
    assert pairs_of(found.outfits) == pairs_of(person.outfits)


def scripted(answers: dict[tuple[int, int], float], photos: int = 4) -> DrawnPerson:
    class Scripted(DrawnPerson):
        def answer(self, ask: Ask) -> Answer:
            score = answers[ask.a, ask.b]
            return Answer(score >= 0.5, score, 0.5)

    return Scripted([0] * photos, np.full((photos, photos), 0.9), set(), 0)


def test_an_open_answer_is_asked_again_the_other_way_round_and_both_count() -> None:
    two = replace(scripted({(0, 1): 0.9, (1, 0): 0.01}), outfits=[0, 0], alike=np.full((2, 2), 0.9))
    found = clustered(two, accept=0.7, sure_same=0.97)
    assert [ask[:2] for ask, _ in found.asked] == [(0, 1), (1, 0)]
    assert found.outfits == [None, None]
    sure = replace(scripted({(0, 1): 0.99}), outfits=[0, 0], alike=np.full((2, 2), 0.9))
    assert len(clustered(sure, accept=0.7, sure_same=0.97).asked) == 1


def test_colours_alone_accept_nothing_that_the_judge_refuses() -> None:
    alike = np.full((2, 2), 0.999)
    two = replace(scripted({(0, 1): 0.4, (1, 0): 0.4}), outfits=[0, 0], alike=alike)
    assert clustered(two, calibration=CALIBRATION, accept=0.6).outfits == [None, None]


def test_a_photo_that_the_judge_cannot_answer_for_is_failed_and_its_outfit_stays() -> None:
    class Broken(DrawnPerson):
        def answer(self, ask: Ask) -> Answer:
            return Answer(None, error="no answer") if 2 in ask[:2] else Answer(True, 0.999, 0.5)

    alike = np.full((4, 4), 0.9)
    alike[2] = alike[:, 2] = 0.8
    found = clustered(Broken([0] * 4, alike, set(), 0))
    assert [outcome.verdict for outcome in found.photos] == ["kept", "kept", "failed", "kept"]
    assert found.outfits == ["a", "a", None, "a"]
    assert found.person.verdict == "kept"


def test_a_triangle_that_does_not_close_is_asked_again_and_the_odd_photo_leaves() -> None:
    """0 = 1 and 1 = 2, but 0 ≠ 2 and 0 ≠ 3."""
    yes, no = 0.999, 0.001
    said = {(a, b): yes for a in range(4) for b in range(4)}
    said |= {(0, 2): no, (2, 0): no, (0, 3): no, (3, 0): no}
    alike = np.full((4, 4), 0.9)
    alike[0, 1] = alike[1, 0] = 0.95
    alike[0, 2] = alike[2, 0] = 0.7
    person = replace(scripted(said), alike=alike)
    assert clustered(person, check_triangles=False, second_member=False).outfits == ["a"] * 4
    assert clustered(person, check_triangles=True).outfits == [None, "a", "a", "a"]


def test_a_wrong_yes_joins_no_two_outfits_and_a_wrong_no_parts_no_four_photos() -> None:
    """Outfits 0 1 2 and 3 4 5, of which 2 and 3 are said to be the same; one outfit, not for 0 and 2."""
    alike = np.full((6, 6), 0.6)
    for a, b, near in ((0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.95), (3, 4, 0.9), (4, 5, 0.9), (0, 2, 0.8)):
        alike[a, b] = alike[b, a] = near
    said = {(a, b): 0.999 if a // 3 == b // 3 else 0.001 for a in range(6) for b in range(6)}
    person = replace(scripted(said | {(2, 3): 0.999, (3, 2): 0.999}, 6), alike=alike)
    assert clustered(person, second_member=False, check_triangles=False).outfits == ["a"] * 6
    one, two, _, *others = clustered(person, second_member=False).outfits  # these answers leave 2 open
    assert (one, two, set(others)) == ("a", "a", {"b"})
    alike[0, 2] = alike[2, 0] = 0.5
    yes = dict.fromkeys(said, 0.999) | {(0, 2): 0.001, (2, 0): 0.001}
    person = replace(scripted(yes, 6), alike=alike)
    assert clustered(person, second_member=False).outfits == ["a"] * 6


def test_what_was_merged_at_the_end_is_marked_and_strict_merges_nothing() -> None:
    yes = {(a, b): 0.999 for a in range(4) for b in range(4)}
    alike = np.full((4, 4), 0.1)
    for a, b in ((0, 1), (2, 3)):
        alike[a, b] = alike[b, a] = 0.95
    person = replace(scripted(yes), alike=alike)
    strict = clustered(person, low_cut=0.5)
    assert strict.outfits == ["a", "a", "b", "b"]
    assert not any(strict.merged)
    recall = clustered(person, preset="recall", low_cut=0.5)
    assert recall.outfits == ["a"] * 4
    assert sum(recall.merged) == 2
    assert "merged" in "".join(outcome.detail for outcome in recall.photos)


def test_a_decision_names_the_photo_that_it_was_compared_with() -> None:
    person = drawn_person(5, 6, 1, **RIGHT)
    found = clustered(person, [f"photo-{number}-of-many" for number in range(6)])
    assert sum("the same as photo-" in outcome.detail for outcome in found.photos) == 5


def test_a_region_that_differs_refuses_and_two_that_agree_are_needed() -> None:
    yes, no, unseen = Answer(True, 0.9, 0.5), Answer(False, 0.1, 0.5), Answer(None, 0.5, 0.5)
    assert from_regions({"upper": yes, "lower": yes, "shoes": unseen}).same is True
    assert from_regions({"upper": yes, "lower": no, "shoes": yes}).same is False
    assert from_regions({"upper": yes, "lower": unseen, "shoes": unseen}).same is None
    assert from_regions({"upper": yes, "lower": Answer(None, error="gone")}).error == "gone"


def _asked_about_regions(whole: float, regions: Answer, **settings: object) -> Verdicts:
    """Two photos of one person: every question about the pair has the score `whole`."""
    strategy = ClustersStrategy.model_validate({"backend": "clusters", "second_member": False, **settings})
    running = outfit_clusters(["0", "1"], np.array([[1.0, 0.9], [0.9, 1.0]]), strategy, 2, asks_regions=True)
    return drive(running, lambda ask: regions if ask.by_regions else Answer(whole >= 0.5, whole, 0.5))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_what_the_regions_say_holds_for_every_cut_of_the_judge(cut: float) -> None:
    differs = Answer(False, cut - 0.02, cut, "upper differs")
    agrees = Answer(True, cut + 0.02, cut, "upper same, lower same")
    assert _asked_about_regions(0.94, differs).outfits == [None, None]
    assert _asked_about_regions(0.94, agrees, accept=0.75).outfits == ["a", "a"]
    assert _asked_about_regions(0.94, Answer(None)).outfits == ["a", "a"]


def test_a_pair_whose_regions_got_no_answer_is_not_decided_without_them() -> None:
    found = _asked_about_regions(0.94, Answer(None, error="the server is gone"))
    assert "failed" in [outcome.verdict for outcome in found.photos]
    assert "the server is gone" in "".join(outcome.detail for outcome in found.photos)


def test_outfits_are_named_beyond_the_alphabet() -> None:
    assert [letters(number) for number in (0, 25, 26, 27, 52)] == ["a", "z", "ba", "bb", "ca"]
