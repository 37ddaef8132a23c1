"""Identities: pairwise and BCubed precision and recall of the clusters of people.

Over everyone who reached the phase `identities`. A person whom that phase ruled out counts as a cluster
of its own. Whose face it is, whose_face.py says. One that is nobody's in the truth lowers the precision of
the cluster that it is in, and is otherwise not counted.
"""

from collections import Counter
from collections.abc import Sequence

from curation.evaluation.answers import Identified
from curation.evaluation.measure import Measure, share


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
