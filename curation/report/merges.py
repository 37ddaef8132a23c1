"""Identities that may hold two people, and people that may have two identities.

Both by the rule that joins clusters: the mean cosine over all pairs of two sets of faces (average linkage).
An identity is cut in two along the first principal axis of its faces; the lower the mean cosine between
the halves, the more it looks like two people. Two identities with a mean cosine close below
`identities.merge_cosine` look like one.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.report.scores import Subject
from curation.run_folder import Run
from curation.storage import read_table

_MOST_IDENTITIES = 20_000  # compared with one another: the time grows with the square
_BLOCK = 1024


@dataclass(frozen=True)
class Suspect:
    """Two sets of person_ids, the mean cosine between them, and of which kind the doubt is."""

    cosine: float
    a: list[str]
    b: list[str]
    kind: str = ""


@dataclass(frozen=True)
class _Identity:
    person_ids: list[str]
    mean: np.ndarray  # of unit vectors, so that products of means are mean cosines


def suspected_merges(run: str, excluded: Container[str], most: int) -> tuple[list[Suspect], list[Suspect]]:
    """(identities that look like two people, pairs of identities that look like one), most doubtful first.

    Both empty before the phase `outfits`; the second also above 20,000 identities.
    """
    means: list[_Identity] = []
    within: list[Suspect] = []
    for person_ids, faces in _identities(run, excluded):
        means.append(_Identity(person_ids, faces.mean(axis=0)))
        if len(person_ids) > 1:
            within.append(_halves(person_ids, faces))
    within.sort(key=lambda suspect: (suspect.cosine, suspect.a[0]))
    return within[:most], _near(means, most) if len(means) <= _MOST_IDENTITIES else []


def doubts_of_phase(run: str, excluded: Container[str], most: int) -> list[Suspect]:
    """What the phase `identities` wrote down as doubtful itself: one face of either side, the highest
    cosines first. Empty for runs that wrote down none."""
    found = []
    for path in Run(run).suspects.paths():
        for row in read_table(path).to_pylist():
            a, b = row["person_a"], row["person_b"]
            if a and b and a[:64] not in excluded and b[:64] not in excluded:
                found.append(Suspect(round(row["cosine"], 4), [a], [b], row["kind"]))
    found.sort(key=lambda suspect: (-suspect.cosine, suspect.a, suspect.b))
    return found[:most]


def _identities(run: str, excluded: Container[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """(person_ids, float32 [n, d] unit vectors) of each identity."""
    for table in Run(run).gathered.tables(["identity", "person_id", "face"]):
        found: dict[str, list[tuple[str, bytes]]] = {}
        for row in table.to_pylist():
            if row["person_id"][:64] not in excluded:
                found.setdefault(row["identity"], []).append((row["person_id"], row["face"]["embedding"]))
        for people in found.values():
            faces = np.stack([np.frombuffer(embedding, "<f4") for _, embedding in people])
            lengths = np.linalg.norm(faces, axis=1, keepdims=True)
            yield [person_id for person_id, _ in people], faces / np.maximum(lengths, 1e-9)


def _halves(person_ids: list[str], faces: np.ndarray) -> Suspect:
    """The cut along the first principal axis, and the mean cosine across it."""
    centred = faces - faces.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    along = centred @ axes[0]
    first = along >= 0 if 0 < (along >= 0).sum() < len(along) else along > along.min()
    if first.all() or not first.any():  # all faces are equal
        first = np.arange(len(along)) == 0
    a = [person_id for person_id, mine in zip(person_ids, first, strict=True) if mine]
    b = [person_id for person_id, mine in zip(person_ids, first, strict=True) if not mine]
    cosine = float(faces[first].mean(axis=0) @ faces[~first].mean(axis=0))
    # The sign of an axis is anybody's guess: the smaller half is the odd one.
    a, b = sorted((a, b), key=lambda half: (-len(half), half))
    return Suspect(round(cosine, 4), a, b)


def _near(means: list[_Identity], most: int) -> list[Suspect]:
    """The pairs of identities with the highest mean cosine that share no photo."""
    if len(means) < 2:
        return []
    matrix = np.stack([identity.mean for identity in means])
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(means), _BLOCK):
        cosines = matrix[start : start + _BLOCK] @ matrix.T
        rows = np.arange(start, start + len(cosines))[:, None]
        cosines[rows >= np.arange(len(means))[None, :]] = -2
        flat = np.argpartition(-cosines, min(4 * most, cosines.size - 1), axis=None)[: 4 * most]
        for i, j in zip(*np.unravel_index(flat, cosines.shape), strict=True):
            if cosines[i, j] > -2:
                found.append((round(float(cosines[i, j]), 4), start + int(i), int(j)))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    near = []
    for cosine, i, j in found:
        a, b = means[i].person_ids, means[j].person_ids
        # Two people on one photo are two people.
        if not {name[:64] for name in a} & {name[:64] for name in b}:
            near.append(Suspect(cosine, a, b))
        if len(near) == most:
            break
    return near


def merge_entries(suspects: list[Suspect], at: dict[str, Subject], each: int) -> list[dict[str, Any]]:
    """For the page: {kind, cosine, sizes, a, b}, at most `each` subjects of either side."""
    return [
        {
            "kind": suspect.kind,
            "cosine": suspect.cosine,
            "sizes": [len(suspect.a), len(suspect.b)],
            **{
                side: [list(at[person_id]) for person_id in people[:each] if person_id in at]
                for side, people in (("a", suspect.a), ("b", suspect.b))
            },
        }
        for suspect in suspects
    ]
