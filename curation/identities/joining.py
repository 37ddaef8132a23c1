"""Joins of an index's identities: proposals from a search of all of it, acceptance on a person's word.

Two faces of one photo are two people (docs/identities.md, step 4). That must hold for all that a join makes
one, not for its two identities alone: A with B and B with C join A with C.
"""

import tempfile
from collections.abc import Iterable

import numpy as np

from curation.engine import InlineEngine
from curation.errors import ConfigError
from curation.identities.exact_cosines import mean_cosine, sum_of
from curation.identities.faces import PHOTO_ID_DIGITS, Collector
from curation.identities.index import IdentityIndex
from curation.identities.merges import Merge, Merges
from curation.identities.search import find_pairs
from curation.identities.vectors import write_vectors
from curation.settings.base import Resources
from curation.settings.identities import SearchSettings
from curation.storage import join

_GRID = 0.01  # more than the grid moves a cosine by
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


def propose_merges(index: IdentityIndex, merge_cosine: float) -> int:
    """Proposes joins of two identities whose mean cosine over all pairs reaches `merge_cosine`.

    All of them up to `search.exact_faces` (50,000) identities; above, those that the search by cells finds.
    Identities with faces on one photo are two people. Returns how many proposals are new.

    Raises ConfigError where embeddings have expired: they are no longer there to be searched.
    """
    expired = index.expired()
    if expired:
        raise ConfigError(
            f"{index.folder}: {', '.join(expired)}: came in more than {index.days} days ago "
            "(identities.index_days) and may not be searched; the next run with this index deletes them"
        )
    collector = Collector()
    given = index.load(collector)
    if not given:
        return 0
    aliases = index.aliases()
    with tempfile.TemporaryDirectory(prefix="persona-") as folder:
        rows, vectors = collector.close(join(folder, "faces"))
        photos = rows.photos()
        name_of = [aliases.get(given[person_id], given[person_id]) for person_id in rows.person_id]
        names, code = np.unique(np.array(name_of), return_inverse=True)
        order = np.argsort(code, kind="stable")
        starts = np.searchsorted(code[order], np.arange(len(names) + 1))
        sums = np.empty((len(names), vectors.dimension), np.float32)
        for i in range(len(names)):
            sums[i] = sum_of(vectors.take(order[starts[i] : starts[i + 1]]))
        lengths = np.maximum(np.linalg.norm(sums.astype(np.float64), axis=1, keepdims=True), 1e-12)
        prototypes = write_vectors(join(folder, "means"), iter([sums / lengths]), len(names), sums.shape[1])
        # Means are shorter than 1 before they are made units, so none that matters is nearer than this.
        found = find_pairs(
            InlineEngine(),
            join(folder, "means"),
            prototypes,
            merge_cosine - _GRID,
            SearchSettings(),
            Resources(),
        )
    merges, new = index.merges, 0
    for a, b in zip(found.left.tolist(), found.right.tolist(), strict=True):
        counts = np.diff(starts)[[a, b]].tolist()
        cosine = mean_cosine(sums[a].astype(np.float64), counts[0], sums[b].astype(np.float64), counts[1])
        shared = np.intersect1d(
            photos[order[starts[a] : starts[a + 1]]], photos[order[starts[b] : starts[b + 1]]]
        )
        if cosine >= merge_cosine and not len(shared):
            new += merges.propose(str(names[a]), str(names[b]), cosine)
    merges.save()
    return new
