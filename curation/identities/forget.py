"""Forgets people in an identity index: their faces, their names, and the joins that named them.

Files that hold nothing of them keep their bytes. A file that does is written anew without their rows,
under another name (the name is a hash of the rows), and the old one is deleted afterwards: killed between
the two, the same call again completes it. Prototypes are not stored, so none outlives its faces.

This forgets what is there. That a photo does not come back with the next collection is the business of
the tombstones that ingest obeys.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.identities.exact_cosines import mean_cosine, on_grid, sum_of
from curation.identities.faces import PHOTO_ID_DIGITS
from curation.identities.index import IdentityIndex, faces_name
from curation.identities.merges import Merges
from curation.storage import join, parquet_footer, remove, remove_unfinished, write_table


@dataclass(frozen=True)
class Forgotten:
    """What went.

    faces       rows
    files       files of faces that were written anew or deleted
    identities  names of which no face is left, ascending
    merges      joins deleted because they named one of these
    proposed    joins proposed anew between identities that only a deleted one held together
    """

    faces: int
    files: int
    identities: list[str]
    merges: int
    proposed: int


def forget(
    folder: str,
    *,
    person_ids: Iterable[str] = (),
    photo_ids: Iterable[str] = (),
    identities: Iterable[str] = (),
) -> Forgotten:
    """Takes these people out of the index in `folder` (path or URL). What it does not know is no error.

    person_ids  a face each
    photo_ids   every face on these photos
    identities  every face of these and of all that accepted joins make one with them

    Raises ConfigError where the folder is no index. A run must not extend the index meanwhile.
    """
    index = IdentityIndex(folder)
    before = index.aliases()
    named = {before.get(name, name) for name in identities}
    persons, photos = set(person_ids), set(photo_ids)

    def goes(row: dict[str, Any]) -> bool:
        given = row["identity"]
        name = row["person_id"]
        return name in persons or name[:PHOTO_ID_DIGITS] in photos or before.get(given, given) in named

    remove_unfinished(folder)
    faces, files, seen, left = _rewrite(index, goes)
    merges = index.merges
    # A kill before merges.json was written left names there: each must have a face.
    gone = (seen | {name for entry in merges.entries.values() for name in (entry.into, entry.other)}) - left
    deleted = merges.drop(gone)
    proposed = _propose_across(index, merges, before, left) if deleted else 0
    if deleted:
        merges.save()
    return Forgotten(faces, files, sorted(gone), deleted, proposed)


def _rewrite(
    index: IdentityIndex, goes: Callable[[dict[str, Any]], bool]
) -> tuple[int, int, set[str], set[str]]:
    """(faces gone, files touched, names before, names with a face left)."""
    faces, files = 0, 0
    seen: set[str] = set()
    left: set[str] = set()
    for name in index.additions():
        path = join(index.folder, name)
        keys = index.read(name, ["person_id", "identity"]).to_pylist()
        stays = [not goes(row) for row in keys]
        seen |= {row["identity"] for row in keys}
        left |= {row["identity"] for row, keep in zip(keys, stays, strict=True) if keep}
        if all(stays):
            continue
        rest = index.read(name).filter(pa.array(stays, pa.bool_()))
        if rest.num_rows:
            # The day that the file came in stays, so that it still expires on time.
            rest = rest.replace_schema_metadata(dict(parquet_footer(path).metadata))
            rows = zip(rest["person_id"].to_pylist(), rest["identity"].to_pylist(), strict=True)
            write_table(join(index.folder, faces_name(rows)), rest)
        remove(path)
        faces += stays.count(False)
        files += 1
    return faces, files, seen, left


def _propose_across(index: IdentityIndex, merges: Merges, before: dict[str, str], left: set[str]) -> int:
    """Identities that were one through a deleted one are apart now; people may join them again."""
    now = merges.aliases()
    parts: dict[str, set[str]] = {}
    for name in left:
        parts.setdefault(before.get(name, name), set()).add(now.get(name, name))
    torn = [sorted(names) for _, names in sorted(parts.items()) if len(names) > 1]
    if not torn:
        return 0
    sums = _sums(index, now, {name for names in torn for name in names})
    found = 0
    for into, *others in torn:
        for other in others:
            found += merges.propose(into, other, mean_cosine(*sums[into], *sums[other]))
    return found


def _sums(
    index: IdentityIndex, aliases: dict[str, str], wanted: set[str]
) -> dict[str, tuple[np.ndarray, int]]:
    """{identity: (sum of its faces, float64 [d], how many)}, aliases followed."""
    sums: dict[str, tuple[np.ndarray, int]] = {}
    for name in index.additions():
        table = index.read(name, ["identity", "embedding"])
        for row in table.to_pylist():
            identity = aliases.get(row["identity"], row["identity"])
            if identity in wanted:
                face = sum_of(on_grid(np.frombuffer(row["embedding"], "<f4")[None]))
                total, count = sums.get(identity, (np.zeros_like(face), 0))
                sums[identity] = (total + face, count + 1)
    return sums
