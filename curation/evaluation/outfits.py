"""Outfits: what the judge said of the pairs that it was asked, and the pairs that came out at the end.

True is a pair of one identity in one outfit, on two photos (`whose_face.py` says who is shown). A person that
is nobody in the truth makes every pair wrong.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from curation.evaluation.answers import Answers
from curation.evaluation.measure import Measure, share
from curation.evaluation.truth import Truth
from curation.evaluation.whose_face import who_is_shown

Person = dict[str, Any]


def outfits(answers: Answers, truth: Truth) -> list[Measure]:
    """judge_run_*, pair_precision, pair_recall, pairs_kept and groups_kept."""
    true = who_is_shown(answers.looked_at)
    return [*_judge(answers, true), *final_pairs(answers.groups, truth, true)]


def same_outfit(a: Person | None, b: Person | None) -> bool:
    """Whether two people of the truth are one person in one outfit."""
    if a is None or b is None:
        return False
    return bool(a["identity"] == b["identity"] and a["outfit"] == b["outfit"])


def _judge(answers: Answers, true: dict[str, Person | None]) -> list[Measure]:
    """The pairs of the run are mostly yes: the mean of both recalls does not reward a constant answer.

    A pair that the judge could not tell, or got no answer for, is a wrong one.
    """
    right: Counter[bool] = Counter()
    asked: Counter[bool] = Counter()
    for a, b, said in answers.pairs:
        is_same = same_outfit(true.get(a), true.get(b))
        asked[is_same] += 1
        right[is_same] += said is is_same
    balanced = None
    if asked[True] and asked[False]:
        balanced = round((right[True] / asked[True] + right[False] / asked[False]) / 2, 5)
    return [
        Measure("judge_run_accuracy", "judge, pairs of the run, balanced", balanced, len(answers.pairs)),
        share("judge_run_yes", "judge, pairs of the run that are the same", right[True], asked[True]),
        share("judge_run_no", "judge, pairs of the run that are not", right[False], asked[False]),
    ]


def final_pairs(
    groups: Mapping[str, Sequence[str]], truth: Truth, true: Mapping[str, Person | None]
) -> list[Measure]:
    """Pairs of photos in one group ({group: person_ids}), against all that the collection holds.

    The recall is over the pairs of main people on photos that decode and are no copies. A photo and its
    copies count as one, whichever of them the run kept.
    """
    kept = right = 0
    found: set[frozenset[tuple[str, str]]] = set()
    wanted = _wanted_pairs(truth)
    for people in groups.values():
        for a, b in combinations(people, 2):
            kept += 1
            first, second = true.get(a), true.get(b)
            if first is None or second is None or not same_outfit(first, second):
                continue
            places = frozenset((_place(truth, first), _place(truth, second)))
            if len(places) == 2:
                right += 1
                found.add(places)
    return [
        share("pair_precision", "final pairs that are one person in one outfit", right, kept),
        share("pair_recall", "true pairs of the collection that came out", len(found & wanted), len(wanted)),
        Measure("pairs_kept", "final pairs", kept, None),
        Measure("groups_kept", "groups packed", len(groups), None),
    ]


def _wanted_pairs(truth: Truth) -> set[frozenset[tuple[str, str]]]:
    worn: dict[str, list[tuple[str, str]]] = {}
    for photo_id, people in truth.people.items():
        photo = truth.photos.get(photo_id)
        if photo is None or not truth.decodes(photo_id) or truth.original(photo_id) != photo_id:
            continue
        for person in people:
            if person["main"]:
                worn.setdefault(person["outfit"], []).append(_place(truth, person))
    return {
        frozenset(pair)
        for places in worn.values()
        for pair in combinations(places, 2)
        if pair[0][0] != pair[1][0]
    }


def _place(truth: Truth, person: Person) -> tuple[str, str]:
    return truth.original(person["photo_id"]), person["identity"]
