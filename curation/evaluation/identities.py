"""Faces and identities against the truth.

The faces are those that the stage `face` kept of people matched to the truth. PAIRS pairs are drawn, half
of one identity and half of two, always from different photos and never from a photo and its copy;
look-alikes are drawn as anyone. As on LFW (Huang et al., 2007) the accuracy is that of ten folds, each
measured at the threshold that is best on the other nine.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from curation.evaluation.answers import Identified, LookedAt
from curation.evaluation.truth import Measure, Truth, share

PAIRS = 2000
FOLDS = 10
SEED = 2015  # of the draw; any number does, as long as it stays
_ROUNDS = 20  # of drawing pairs of two identities, until there are enough different ones


def faces(photos: list[LookedAt], truth: Truth) -> list[Measure]:
    """face_accuracy, face_auc, face_eer, and how many of the drawn pairs are different ones."""
    people = sorted(
        (
            person
            for photo in photos
            for person in photo.people
            if person.truth and person.embedding is not None
        ),
        key=lambda person: person.person_id,
    )
    who = [str(person.truth["identity"]) for person in people if person.truth]
    photo_of = [truth.original(person.photo_id) for person in people]
    drawn = draw_pairs(who, photo_of, PAIRS)
    says = "faces told apart, ten folds"
    if drawn is None:
        return [Measure("face_accuracy", says, None, 0)]
    a, b, same = drawn
    vectors = np.stack([person.embedding for person in people if person.embedding is not None])
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosine = (vectors[a] * vectors[b]).sum(axis=1)
    different = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return [
        Measure("face_accuracy", says, round(ten_fold_accuracy(cosine, same), 5), PAIRS),
        Measure("face_auc", "area under the curve of the same pairs", round(area(cosine, same), 5), PAIRS),
        Measure("face_eer", "equal error rate of the same pairs", round(equal_error(cosine, same), 5), PAIRS),
        Measure("face_pairs", "different pairs among those drawn", different, PAIRS),
    ]


def draw_pairs(
    who: Sequence[str], photo_of: Sequence[str], count: int, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(a, b, same): places of `count` pairs, half of them same; None where one kind does not exist.

    Where there are fewer different pairs of a kind than wanted, all are taken and some again.
    """
    random = np.random.default_rng(seed)
    names, identity = np.unique(np.array(who, str), return_inverse=True)
    photo = np.unique(np.array(photo_of, str), return_inverse=True)[1]
    same: list[tuple[int, int]] = []
    for number in range(len(names)):
        members = np.flatnonzero(identity == number).tolist()
        same += [(i, j) for i, j in combinations(members, 2) if photo[i] != photo[j]]
    other: dict[tuple[int, int], None] = {}
    for _ in range(_ROUNDS if len(names) > 1 else 0):
        if len(other) >= count // 2:
            break
        for i, j in np.sort(random.integers(0, len(who), (4 * count, 2)), axis=1).tolist():
            if identity[i] != identity[j] and photo[i] != photo[j]:
                other[i, j] = None
    if not same or not other:
        return None
    pairs = np.array(_take(same, count // 2, random) + _take(list(other), count // 2, random))
    return pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < count // 2


def _take(pairs: list[tuple[int, int]], count: int, random: np.random.Generator) -> list[tuple[int, int]]:
    order = random.permutation(len(pairs)).tolist()
    again = random.integers(0, len(pairs), max(count - len(pairs), 0)).tolist()
    return [pairs[place] for place in (order + again)[:count]]


def ten_fold_accuracy(score: np.ndarray, same: np.ndarray) -> float:
    """Mean accuracy of FOLDS folds, both kinds of pairs in each, at the others' best threshold."""
    fold = np.zeros(len(score), int)
    for kind in (same, ~same):
        fold[kind] = np.arange(int(kind.sum())) % FOLDS
    found = []
    for number in range(FOLDS):
        members = fold == number
        cut = best_threshold(score[~members], same[~members])
        found.append(float(((score[members] >= cut) == same[members]).mean()))
    return float(np.mean(found))


def best_threshold(score: np.ndarray, same: np.ndarray) -> float:
    """The threshold of the highest accuracy, half way between two scores."""
    order = np.argsort(score, kind="stable")
    ranked, is_same = score[order], same[order]
    # With the cut before place k, the k lower ones are called different.
    right = np.r_[0, np.cumsum(~is_same)] + (is_same.sum() - np.r_[0, np.cumsum(is_same)])
    possible = np.r_[True, ranked[1:] != ranked[:-1], True]
    place = int(np.argmax(np.where(possible, right, -1)))
    if place == 0:
        return float(ranked[0])
    if place == len(ranked):
        return float(np.nextafter(ranked[-1], np.inf))
    return float((ranked[place - 1] + ranked[place]) / 2)


def area(score: np.ndarray, same: np.ndarray) -> float:
    """Area under the ROC curve: how often a same pair scores above a different one; ties count half."""
    low = np.sort(score[~same])
    below = np.searchsorted(low, score[same], "left") + np.searchsorted(low, score[same], "right")
    return float(below.mean() / 2 / len(low))


def equal_error(score: np.ndarray, same: np.ndarray) -> float:
    """The error rate where as large a share of same pairs is refused as of different ones accepted."""
    cuts = np.unique(score)
    refused = np.searchsorted(np.sort(score[same]), cuts, "left") / same.sum()
    accepted = 1 - np.searchsorted(np.sort(score[~same]), cuts, "left") / (~same).sum()
    place = int(np.argmin(np.abs(refused - accepted)))
    return float((refused[place] + accepted[place]) / 2)


def identities(people: list[Identified], who: dict[str, str | None]) -> list[Measure]:
    """identity_{bcubed,pairwise}_{precision,recall}; `who` gives the true identity by person_id."""
    found, true = _clusters(people, who)
    known = sum(name is not None for name in true)
    precision, recall = bcubed(found, true)
    both, in_found, in_true = pair_counts(found, true)
    return [
        share("identity_bcubed_precision", "clusters of people: BCubed precision", precision * known, known),
        share("identity_bcubed_recall", "clusters of people: BCubed recall", recall * known, known),
        share("identity_pairwise_precision", "pairs put together that are one person", both, in_found),
        share("identity_pairwise_recall", "pairs of one person that were put together", both, in_true),
    ]


def identities_with_copies(people: list[Identified], who: dict[str, str | None]) -> list[Measure]:
    """identity_copies_pairwise_{precision,recall}: the pairs with near copies among the people."""
    both, in_found, in_true = pair_counts(*_clusters(people, who))
    return [
        share(
            "identity_copies_pairwise_precision",
            "pairs put together that are one person, near copies with their originals",
            both,
            in_found,
        ),
        share(
            "identity_copies_pairwise_recall",
            "pairs of one person that were put together, near copies with their originals",
            both,
            in_true,
        ),
    ]


def _clusters(people: list[Identified], who: dict[str, str | None]) -> tuple[list[str], list[str | None]]:
    """Of each person the cluster that it was put in, and its name in the truth."""
    found = [person.identity if person.kept else person.person_id for person in people]
    return found, [who.get(person.person_id) for person in people]


def bcubed(found: Sequence[str], true: Sequence[str | None]) -> tuple[float, float]:
    """Precision and recall after Bagga and Baldwin (1998), mean over the items with a true name."""
    cluster_size = Counter(found)
    true_size = Counter(true)
    both = Counter(zip(found, true, strict=True))
    known = [(name, who) for name, who in zip(found, true, strict=True) if who is not None]
    if not known:
        return 0.0, 0.0
    precision = sum(both[name, who] / cluster_size[name] for name, who in known)
    recall = sum(both[name, who] / true_size[who] for name, who in known)
    return precision / len(known), recall / len(known)


def pair_counts(found: Sequence[str], true: Sequence[str | None]) -> tuple[int, int, int]:
    """Pairs that are together in both, in `found`, and in `true` (None is with nobody)."""
    known = Counter((name, who) for name, who in zip(found, true, strict=True) if who is not None)
    return (
        sum(map(_pairs, known.values())),
        sum(map(_pairs, Counter(found).values())),
        sum(map(_pairs, Counter(who for who in true if who is not None).values())),
    )


def _pairs(size: int) -> int:
    return size * (size - 1) // 2
