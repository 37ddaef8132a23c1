"""Figures of ways of finding outfits: against the truth, per way, and how much any way could gain."""

from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

import numpy as np

from curation.evaluation.groups import final_pairs, same_outfit
from curation.evaluation.truth import Truth
from curation.outfits.judge import PersonRow
from curation.outfits.strategy import Verdicts

Row = dict[str, Any]


class Person:
    """An identity that the run found: its photos by person_id, and how alike their colours are."""

    def __init__(self, identity: str, photos: list[PersonRow], alike: np.ndarray, half: int) -> None:
        self.identity, self.photos, self.alike, self.half = identity, photos, alike, half


def one_person(person: Person, a: int, b: int, true: dict[str, Row | None]) -> bool:
    """Whether two photos of an identity show one person of the truth."""
    one, two = (true.get(person.photos[place]["person_id"]) for place in (a, b))
    return one is not None and two is not None and bool(one["identity"] == two["identity"])


def figures(
    people: list[Person], verdicts: list[Verdicts], truth: Truth, true: dict[str, Row | None]
) -> dict[str, Any]:
    """What came out of one way.

    recall       of all true pairs of the collection, as `pair_recall` of `persona eval`
    clothes      precision over the pairs of one true person: what is wrong there is the judge's or the way's
    people_kept  of identities that hold a true pair, those of which a true pair came out
    """
    groups: dict[str, list[str]] = {}
    with_pair = with_found = right = of_one = 0
    for person, found in zip(people, verdicts, strict=True):
        ids = [photo["person_id"] for photo in person.photos]
        for name, letter in zip(ids, found.outfits, strict=True):
            if letter is not None:
                groups.setdefault(f"{person.identity}-{letter}", []).append(name)
        together = [
            (a, b)
            for a, b in combinations(range(len(ids)), 2)
            if found.outfits[a] is not None and found.outfits[a] == found.outfits[b]
        ]
        of_one += sum(one_person(person, a, b, true) for a, b in together)
        right += sum(same_outfit(true.get(ids[a]), true.get(ids[b])) for a, b in together)
        good = [
            found.outfits[a] is not None and found.outfits[a] == found.outfits[b]
            for a, b in combinations(range(len(ids)), 2)
            if same_outfit(true.get(ids[a]), true.get(ids[b]))
        ]
        with_pair += bool(good)
        with_found += any(good)
    measures = {m.key: m for m in final_pairs(groups, truth, true)}
    calls = sum(len(found.asked) for found in verdicts)
    return {
        "precision": measures["pair_precision"].value,
        "clothes": round(right / of_one, 5) if of_one else None,
        "recall": measures["pair_recall"].value,
        "pairs": measures["pairs_kept"].value,
        "groups": len(groups),
        "people_kept": round(with_found / max(with_pair, 1), 4),
        "calls": calls,
        "calls_per_photo": round(calls / max(sum(len(p.photos) for p in people), 1), 3),
    }


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of a way's rows, one a draw; precisions are weighed by pairs, as of all draws together."""
    if len(rows) == 1:
        return rows[0]
    found: dict[str, Any] = {}
    for name in rows[0]:
        by_pairs = name in ("precision", "clothes")
        known = [(row[name], row["pairs"] if by_pairs else 1) for row in rows if row[name] is not None]
        total = sum(weight for _, weight in known)
        found[name] = round(sum(value * weight for value, weight in known) / total, 5) if total else None
    return found


def contaminated(people: list[Person], who: dict[str, str | None]) -> float:
    """Share of identities with two photos or more that hold people of two true identities."""
    known = [
        {who.get(photo["person_id"]) for photo in p.photos} - {None} for p in people if len(p.photos) > 1
    ]
    return round(sum(len(names) > 1 for names in known) / max(len(known), 1), 4)


def gain_over_paper(truth: Truth) -> tuple[float | None, dict[int, tuple[int, float | None]]]:
    """(recall of perfect groups over that of the paper's protocol, {outfits worn: (people, the same)}).

    For a judge and identities without an error. Of a person with n photos, nₖ of them in outfit k, two random
    photos agree in outfit k with nₖ (nₖ − 1) / n (n − 1); then all its pairs are kept and no other. So the
    gain depends on nothing but how many outfits people wear, and how evenly.
    """
    worn: dict[str, Counter[str]] = defaultdict(Counter)
    for photo_id, people in truth.people.items():
        if truth.photos[photo_id]["copy_of"] is None:
            for row in people:
                if row["main"]:
                    worn[row["identity"]][row["outfit"]] += 1
    sums: dict[int, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for counts in worn.values():
        photos = sum(counts.values())
        every = sum(n * (n - 1) / 2 for n in counts.values())
        agreeing = [n * (n - 1) / max(photos * (photos - 1), 1) * n * (n - 1) / 2 for n in counts.values()]
        entry = sums[len(counts)]
        entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + every, entry[2] + sum(agreeing)
    by_outfits = {
        outfits: (int(people), round(every / paper, 2) if paper else None)
        for outfits, (people, every, paper) in sorted(sums.items())
    }
    every, paper = (sum(entry[place] for entry in sums.values()) for place in (1, 2))
    return (round(every / paper, 3) if paper else None), by_outfits


def print_table(rows: dict[str, dict[str, Any]], title: str) -> None:
    """For people."""
    print(title)
    print(
        f"{'way':<32}{'precision':>10}{'clothes':>9}{'recall':>8}{'people':>8}{'groups':>8}{'calls/photo':>13}"
    )
    for name, row in rows.items():
        shares = f"{row['precision'] or 0:>10.4f}{row['clothes'] or 0:>9.4f}{row['recall'] or 0:>8.4f}"
        print(
            f"{name:<32}{shares}{row['people_kept']:>8.3f}{row['groups']:>8g}{row['calls_per_photo']:>13.2f}"
        )
