"""Accepts joins on a person's word, unless a photo shows that the two are two people.

Two faces of one photo are two people (docs/identities.md, step 4). That must hold for all that a join makes
one, not for its two identities alone: A with B and B with C join A with C.
"""

from collections.abc import Iterable

from curation.identities.collect import PHOTO_ID_DIGITS
from curation.identities.index import IdentityIndex
from curation.identities.merges import Merge, Merges

DESPITE = "despite a shared photo"  # what the log of a join says that a person accepted nevertheless


def accept_merges(
    index: IdentityIndex, merges: Merges, ids: Iterable[str], despite_shared_photo: bool = False
) -> dict[str, str]:
    """Accepts these of `merges`, the likest first. Returns {id: one line that says why} of those refused.

    Refused is what would join two identities with a face on one photo (unless `despite_shared_photo`, which
    the log then says), or two that a person parted by reverting another merge that is not among `ids`.

    Raises ConfigError for an unknown id; nothing is saved.
    """
    chosen = sorted(merges.named(ids), key=lambda entry: (-entry.cosine, entry.id))
    photos = _photos(index, merges, chosen)
    refused: dict[str, str] = {}
    for entry in chosen:
        unions = merges.unions()
        one, other = photos.pop(unions.root(entry.into), {}), photos.pop(unions.root(entry.other), {})
        shared = one.keys() & other.keys()
        why = _parted(merges, entry, {entry.id for entry in chosen})
        if shared and not despite_shared_photo:
            photo = min(shared)
            why = (
                f"{one[photo]} and {other[photo]} have a face each on the photo {photo}; if they are one "
                "person there (a mirror, a collage), accept this merge alone with --despite-shared-photo"
            )
        if why is not None:
            refused[entry.id] = f"merge {entry.id} stays {entry.state}: {why}"
            photos[unions.root(entry.into)], photos[unions.root(entry.other)] = one, other
            continue
        merges.accept([entry.id], DESPITE if shared else None)
        photos[merges.unions().root(entry.into)] = one | other
    return refused


def _photos(index: IdentityIndex, merges: Merges, chosen: list[Merge]) -> dict[str, dict[str, str]]:
    """{root of a union: {photo_id: an identity of that union with a face on it}} of those that are chosen."""
    unions = merges.unions()
    found: dict[str, dict[str, str]] = {
        unions.root(name): {} for entry in chosen for name in (entry.into, entry.other)
    }
    for addition in index.additions():
        for row in index.read(addition, ["person_id", "identity"]).to_pylist():
            of_union = found.get(unions.root(row["identity"]))
            if of_union is not None:
                of_union.setdefault(row["person_id"][:PHOTO_ID_DIGITS], row["identity"])
    return found


def _parted(merges: Merges, entry: Merge, chosen: set[str]) -> str | None:
    """Why it may not be: a person reverted another merge between the same two people. None: nobody did."""
    for key in sorted(merges.unions().spoken(entry.into, entry.other) - chosen):
        other = merges.entries[key]
        if other.state == "reverted":
            return f"merge {key}, of {other.other} into {other.into}, was reverted; name both to accept them"
    return None
