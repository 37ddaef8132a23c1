"""Near copies as people of their original's identity.

The phase `photos` rejects a copy before anybody on it is looked at, so no row of `identities/` is about it.
It shows whom its original shows, and that is the identity that the run gives it.
"""

from collections.abc import Iterable, Mapping

from curation.evaluation.answers import Identified, Photo
from curation.evaluation.truth import Truth


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
