"""The outfit question on balanced pairs: the run's own crops and masks, asked of the run's own judge.

A run asks few pairs, most of them easy: two photos of a person in one outfit. Here half of the pairs are
one person in one outfit and half are one person in two; both photos are people that the run still had
after its phase `identities`. A hard pair is one of two outfits that share a main garment to the letter
(kind, colour and pattern of upper, lower, dress or shoes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from curation.evaluation.answers import read_answers
from curation.evaluation.groups import same_outfit
from curation.evaluation.truth import Measure, Truth, read_truth, share
from curation.outfits.gather import read_people
from curation.outfits.judge import Answer, PairJudge

MAIN_GARMENTS = ("upper", "lower", "dress", "shoes")


@dataclass(frozen=True)
class JudgePair:
    """Two person_ids of one identity, and what is true of them."""

    a: str
    b: str
    same: bool
    hard: bool


def judge_measures(run: str, truth_folder: str, pairs: int, judge: PairJudge) -> list[Measure]:
    """judge_accuracy, judge_hard_accuracy, judge_yes, judge_no, judge_hard_no, judge_errors.

    judge_accuracy is over all pairs, as many same as not. judge_hard_accuracy is over the hard pairs,
    which are all of two outfits, and the first of as many pairs of one outfit: a judge that always says
    the same has 0.5 in both. judge_hard_no is over the hard pairs alone. An answer that is no yes or no
    is a wrong one.
    """
    truth = read_truth(truth_folder)
    true = read_answers(run, truth).truth_of()
    rows = read_people(run, list(judge.columns))
    known = {name: person for name in sorted(rows) if (person := true.get(name)) is not None}
    drawn = draw_judge_pairs(known, truth, pairs)
    return judged(drawn, judge.ask([(rows[pair.a], rows[pair.b]) for pair in drawn]))


def judged(drawn: Sequence[JudgePair], answers: Sequence[Answer]) -> list[Measure]:
    """The measures of answered pairs."""
    right = [answer.same is pair.same for pair, answer in zip(drawn, answers, strict=True)]
    hard = [pair.hard for pair in drawn]
    same = [pair.same for pair in drawn]
    beside = [place for place, one in enumerate(same) if one][: sum(hard)]
    hard_and_same = [one or place in beside for place, one in enumerate(hard)]

    def of(key: str, says: str, chosen: list[bool]) -> Measure:
        return share(key, says, sum(r for r, c in zip(right, chosen, strict=True) if c), sum(chosen))

    return [
        of("judge_accuracy", "judge, balanced pairs of the world", [True] * len(drawn)),
        of("judge_hard_accuracy", "judge, balanced pairs; the unequal ones share a garment", hard_and_same),
        of("judge_yes", "judge, pairs in one outfit", same),
        of("judge_no", "judge, pairs in two outfits", [not one for one in same]),
        of("judge_hard_no", "judge, pairs in two outfits that share a garment", hard),
        Measure("judge_errors", "pairs without an answer", sum(a.same is None for a in answers), len(drawn)),
    ]


def draw_judge_pairs(
    people: dict[str, dict[str, Any]], truth: Truth, count: int, seed: int = 0
) -> list[JudgePair]:
    """Half `count` pairs of each kind, each pair once; fewer where a world has not as many.

    people {person_id: row of people.parquet}. As many of one kind as of the other, always.
    """
    by_identity: dict[str, list[str]] = {}
    for name, person in people.items():
        by_identity.setdefault(person["identity"], []).append(name)
    kinds: dict[bool, list[JudgePair]] = {True: [], False: []}
    for names in by_identity.values():
        for a, b in combinations(names, 2):
            one, two = people[a], people[b]
            if truth.original(one["photo_id"]) == truth.original(two["photo_id"]):
                continue
            same = same_outfit(one, two)
            hard = not same and shares_garment(truth.garments[one["outfit"]], truth.garments[two["outfit"]])
            kinds[same].append(JudgePair(a, b, same, hard))
    random = np.random.default_rng(seed)
    half = min(count // 2, *map(len, kinds.values()))
    drawn = []
    for pairs in kinds.values():
        drawn += [pairs[place] for place in random.permutation(len(pairs))[:half].tolist()]
    return drawn


def shares_garment(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two outfits have a main garment that is the same in kind, colour and pattern."""
    return any(slot in a and slot in b and a[slot] == b[slot] for slot in MAIN_GARMENTS)
