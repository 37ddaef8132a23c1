"""The attach pass: faces that nothing linked go to the nearest cluster, where that is beyond doubt.

A cluster's prototype is a unit vector as a face is, so the cosine that links faces also attaches them; the
mean of several photos is nearer to another photo of the person than any one of them, and no nearer to a
stranger's.
"""

from dataclasses import dataclass

import numpy as np

from curation.identities.search import Pairs
from curation.identities.vectors import Vectors

_DIGITS = 5
_BLOCK = 8192


@dataclass(frozen=True)
class Attached:
    """`label` with the faces attached; `best` and `second` float64 [n]: cosines of each lone face to the
    nearest and the second prototype near it (0 where there is none; nan for the others)."""

    label: np.ndarray
    best: np.ndarray
    second: np.ndarray


def attach(
    vectors: Vectors,
    label: np.ndarray,
    photos: np.ndarray,
    hints: np.ndarray | None,
    pairs: Pairs,
    least: np.ndarray,
    margin: float,
) -> Attached:
    """Attaches lone faces to clusters of two or more.

    pairs  like faces: a lone face is compared with the clusters of the faces it is paired with
    least  float64 [n]: the cosine to a prototype that attaches a face
    margin by which the second prototype must be farther

    The surest go first; a cluster takes no second face of a photo (and, with `hints`, no second hint).
    """
    sizes = np.bincount(label, minlength=len(label))
    alone = sizes[label] == 1
    best, second = np.where(alone, 0.0, np.nan), np.where(alone, 0.0, np.nan)
    label = label.copy()
    faces, names, cosines = _candidates(vectors, label, alone, sizes, pairs)
    if not len(faces):
        return Attached(label, best, second)
    order = np.lexsort((names, -cosines, faces))
    first = np.flatnonzero(np.r_[True, np.diff(faces[order]) != 0])
    following = np.minimum(first + 1, len(order) - 1)
    has_second = faces[order[following]] == faces[order[first]]
    has_second &= following > first
    lone, name, cosine = faces[order[first]], names[order[first]], cosines[order[first]]
    best[lone] = cosine
    second[lone] = np.where(has_second, cosines[order[following]], 0.0)
    sure = (cosine >= least[lone]) & (np.round(best[lone] - second[lone], _DIGITS) >= margin)
    taken = _Taken(label, photos, hints, name[sure])
    for i in np.flatnonzero(sure)[np.lexsort((lone[sure], -cosine[sure]))].tolist():
        if taken.take(int(lone[i]), int(name[i])):
            label[lone[i]] = name[i]
    return Attached(_least_members(label), best, second)


def _candidates(
    vectors: Vectors, label: np.ndarray, alone: np.ndarray, sizes: np.ndarray, pairs: Pairs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lone face, cluster near it, cosine to its prototype), each once."""
    face, other = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
    near = alone[face] & (sizes[label[other]] > 1)
    both = np.unique(np.stack([face[near], label[other[near]]], axis=1).astype(np.int64), axis=0)
    if not len(both):
        return both[:, 0], both[:, 1], np.zeros(0)
    names, row = np.unique(both[:, 1], return_inverse=True)
    sums = _sums(vectors, label, names)
    cosines = []
    for at in range(0, len(both), _BLOCK):
        total = sums[row[at : at + _BLOCK]].astype(np.float64)
        along = np.einsum("ij,ij->i", vectors.take(both[at : at + _BLOCK, 0]), total)
        lengths = np.sqrt(np.einsum("ij,ij->i", total, total))
        cosines.append(along / np.maximum(lengths, 1e-12))
    return both[:, 0], both[:, 1], np.round(np.concatenate(cosines), _DIGITS)


def _sums(vectors: Vectors, label: np.ndarray, names: np.ndarray) -> np.ndarray:
    """float32 [len(names), dimension]: the sum of each cluster's faces, exact below 4,096 of them.

    `names` ascending.
    """
    faces = np.flatnonzero(np.isin(label, names))
    faces = faces[np.argsort(label[faces], kind="stable")]
    starts = np.searchsorted(label[faces], names)
    sums = np.zeros((len(names), vectors.dimension), np.float32)
    for at in range(0, len(names), 4096):
        low = starts[at]
        high = starts[at + 4096] if at + 4096 < len(names) else len(faces)
        rows = vectors.take(faces[low:high])
        sums[at : at + 4096] = np.add.reduceat(rows, starts[at : at + 4096] - low, axis=0)
    return sums


class _Taken:
    """Which photos and hints the clusters hold."""

    def __init__(
        self, label: np.ndarray, photos: np.ndarray, hints: np.ndarray | None, names: np.ndarray
    ) -> None:
        self._photos, self._hints = photos, hints
        self._held: dict[int, tuple[set[int], set[int]]] = {int(name): (set(), set()) for name in names}
        for face in np.flatnonzero(np.isin(label, names)).tolist():
            self._add(face, int(label[face]))

    def take(self, face: int, name: int) -> bool:
        """Adds the face if nothing forbids it."""
        held_photos, held_hints = self._held[name]
        hint = -1 if self._hints is None else int(self._hints[face])
        if int(self._photos[face]) in held_photos or (hint >= 0 and held_hints - {hint}):
            return False
        self._add(face, name)
        return True

    def _add(self, face: int, name: int) -> None:
        held_photos, held_hints = self._held[name]
        held_photos.add(int(self._photos[face]))
        if self._hints is not None and self._hints[face] >= 0:
            held_hints.add(int(self._hints[face]))


def _least_members(label: np.ndarray) -> np.ndarray:
    """Clusters named by their least member again."""
    least = np.full(len(label), len(label))
    np.minimum.at(least, label, np.arange(len(label)))
    return least[label]
