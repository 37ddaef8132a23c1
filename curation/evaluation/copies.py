"""Copies against the truth: which were found, and which identities they follow."""

from collections import Counter
from collections.abc import Iterable, Mapping

from curation.evaluation.answers import Identified, Photo
from curation.evaluation.measure import Measure, share
from curation.evaluation.truth import Truth


def copies(photos: list[Photo], truth: Truth) -> list[Measure]:
    """duplicate_recall and duplicate_precision, over the photos that the truth knows."""
    screened = [photo for photo in photos if photo.screened and photo.photo_id in truth.photos]
    family = {photo.photo_id: truth.original(photo.photo_id) for photo in screened}
    wanted = {name: count - 1 for name, count in Counter(family[p.photo_id] for p in screened).items()}
    rejected = [photo for photo in screened if photo.copy_of is not None]
    right = Counter(family[p.photo_id] for p in rejected if family.get(p.copy_of or "") == family[p.photo_id])
    found = sum(min(count, wanted[name]) for name, count in right.items())
    return [
        share("duplicate_recall", "copies that were rejected", found, sum(wanted.values())),
        share(
            "duplicate_precision", "photos rejected as copies that are", sum(right.values()), len(rejected)
        ),
    ]


def followed_copies(
    photos: Iterable[Photo], people: Iterable[Identified], who: Mapping[str, str | None], truth: Truth
) -> tuple[list[Identified], dict[str, str | None]]:
    """A person on each near copy for each person of its original, and {person_id: true identity, or None}.

    The truth of the copy says who that is: the one whom it shows with the name that the original has, or,
    of a photo wrongly taken for a copy, the only one left on either side; otherwise nobody. Copies that the
    truth does not know, or shows nobody on, are left out.
    """
    of_photo: dict[str, list[Identified]] = {}
    for person in people:
        of_photo.setdefault(person.person_id[:64], []).append(person)
    found: list[Identified] = []
    names: dict[str, str | None] = {}
    for photo in photos:
        there = [str(row["identity"]) for row in truth.people.get(photo.photo_id, [])]
        # Equal bytes are one photo to the truth, which is counted already.
        if photo.copy_of is None or photo.copy_of == photo.photo_id or not there:
            continue
        originals = of_photo.get(photo.copy_of, [])
        shown = [name if (name := who.get(person.person_id)) in there else None for person in originals]
        left = [name for name in there if name not in shown]
        if len(left) == 1 and shown.count(None) == 1:
            shown[shown.index(None)] = left[0]
        for place, (person, name) in enumerate(zip(originals, shown, strict=True)):
            copied = Identified(f"{photo.photo_id}-{place}", person.identity, person.kept)
            found.append(copied)
            names[copied.person_id] = name
    return found, names
