"""Agglomeration on the neighbour graph by average linkage.

Two clusters are joined while the mean cosine over all pairs between them is high enough. With
unit vectors that mean is the product of the clusters' mean vectors, so it is exact and costs one
dot product, also where the graph has no edge between two members. On a labelled set of people,
components at a stock threshold gave pair precision 0.08, average linkage at the same threshold 1.0
(../docs/identities.md).
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curation.identities.exact_cosines import mean_cosine, sum_of
from curation.identities.linking import LinkCosines
from curation.identities.search import Pairs
from curation.identities.vectors import Vectors

_DIGITS = 5
_DENSE = 2000  # faces of a component whose cosines are all looked at in one product


@dataclass(frozen=True)
class Start:
    """Clusters that are there before the first join: those of an index.

    label   int [n]: the cluster of each face (the least member); a face of its own is its own number
    frozen  bool [n]: its cluster has been given away, and is never joined with another one that has
    """

    label: np.ndarray
    frozen: np.ndarray


@dataclass
class Clusters:
    """What came of it.

    label    int [n]: the cluster of each face (its least member)
    refused  (a, b, mean): joins of two frozen clusters that their mean cosine asked for, by a face of each
    """

    label: np.ndarray
    refused: list[tuple[int, int, float]] = field(default_factory=list)


def agglomerate(
    vectors: Vectors,
    photos: np.ndarray,
    hints: np.ndarray | None,
    edges: Pairs,
    cosines: LinkCosines,
    blocks: np.ndarray,
    start: Start | None = None,
) -> Clusters:
    """Clusters of all faces; one without an edge stays as it is.

    blocks  int [n]: the collection of each face; clusters inside one join from `cosines.inside` on, others
            from `cosines.between`

    The best pair is joined first; ties go to the lowest numbers, so the result depends on the set of
    faces and their numbers alone. Clusters that hold two faces of one photo, or (with `hints`) two
    hints, are never joined. Works on one connected component of the graph at a time: no cluster
    reaches beyond one, and memory is that of the largest.
    """
    count = len(photos)
    begun = np.arange(count) if start is None else start.label
    frozen = np.zeros(count, bool) if start is None else start.frozen
    found = Clusters(begun.copy())
    for faces, links in _components(begun, edges):
        rows = vectors.take(faces)
        hint = None if hints is None else hints[faces]
        part = _Part(rows, photos[faces], hint, begun[faces], frozen[faces], blocks[faces], links)
        if part.is_one(cosines.between):
            found.label[faces] = faces[0]
            continue
        for members in part.join(cosines):
            found.label[faces[members]] = faces[min(members)]
        found.refused += [(int(faces[a]), int(faces[b]), mean) for a, b, mean in part.refused]
    return found


def _components(begun: np.ndarray, edges: Pairs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(faces in order, links between their places [m, 2]) of each component that has an edge."""
    count = len(begun)
    linked = np.flatnonzero(begun != np.arange(count))
    left, right = np.concatenate([edges.left, linked]), np.concatenate([edges.right, begun[linked]])
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    touched = np.unique(component[edges.left])
    faces = np.flatnonzero(np.isin(component, touched))
    faces = faces[np.argsort(component[faces], kind="stable")]
    order = np.argsort(component[edges.left], kind="stable")
    face_starts = np.searchsorted(component[faces], [*touched.tolist(), count])
    edge_starts = np.searchsorted(component[edges.left][order], [*touched.tolist(), count])
    place = np.empty(count, np.int64)
    for (a, b), (c, d) in zip(pairwise(face_starts.tolist()), pairwise(edge_starts.tolist()), strict=True):
        component_faces = faces[a:b]
        place[component_faces] = np.arange(len(component_faces))
        part = order[c:d]
        yield component_faces, np.stack([place[edges.left[part]], place[edges.right[part]]], axis=1)


class _Part:
    """One component: its faces by their places in it."""

    def __init__(
        self,
        rows: np.ndarray,
        photos: np.ndarray,
        hints: np.ndarray | None,
        begun: np.ndarray,
        frozen: np.ndarray,
        blocks: np.ndarray,
        links: np.ndarray,
    ) -> None:
        self._rows = rows
        self._photos = photos
        self._hints = hints
        self._begun = np.unique(begun, return_inverse=True)[1]
        self._frozen = frozen
        self._blocks = blocks
        self._links = links
        self.refused: list[tuple[int, int, float]] = []

    def is_one(self, least: float) -> bool:
        """Whether nothing can keep the component from becoming one cluster: no pair in it is apart.

        Any mean is at least the least cosine, so every linked pair of clusters would be joined.
        """
        if len(self._rows) > _DENSE or len(np.unique(self._photos)) < len(self._photos):
            return False
        if self._hints is not None and len(np.unique(self._hints[self._hints >= 0])) > 1:
            return False
        if len(np.unique(self._begun[self._frozen])) > 1:
            return False
        return float((self._rows @ self._rows.T).min()) >= least + 10**-_DIGITS

    def join(self, cosines: LinkCosines) -> list[list[int]]:
        """The clusters, as lists of places."""
        members: dict[int, list[int]] = defaultdict(list)
        for place, unit in enumerate(self._begun.tolist()):
            members[unit].append(place)
        sums = {unit: sum_of(self._rows[faces]) for unit, faces in members.items()}
        photos = {unit: set(self._photos[faces].tolist()) for unit, faces in members.items()}
        hints = {unit: self._hint_set(faces) for unit, faces in members.items()}
        block = {unit: self._block_of(faces) for unit, faces in members.items()}
        lowest = cosines.least()
        frozen = {unit: bool(self._frozen[faces].any()) for unit, faces in members.items()}
        linked: dict[int, set[int]] = defaultdict(set)
        heap: list[tuple[float, int, int, int, int]] = []

        def push(a: int, b: int) -> None:
            a, b = min(a, b), max(a, b)
            mean = mean_cosine(sums[a], len(members[a]), sums[b], len(members[b]))
            if mean < lowest:
                return
            inside = block[a] is not None and block[a] == block[b]
            if inside or mean >= cosines.between:
                heapq.heappush(heap, (-mean, a, b, len(members[a]), len(members[b])))

        for left, right in np.unique(np.sort(self._begun[self._links], axis=1), axis=0).tolist():
            if left != right:
                linked[left].add(right)
                linked[right].add(left)
                push(left, right)
        while heap:
            mean, a, b, size_a, size_b = heapq.heappop(heap)
            if a not in members or b not in members:
                continue
            if len(members[a]) != size_a or len(members[b]) != size_b:
                continue  # one of them has grown since; the pair was pushed again
            both_frozen = frozen[a] and frozen[b]
            if both_frozen or photos[a] & photos[b] or len(hints[a] | hints[b]) > 1:
                if both_frozen and not photos[a] & photos[b]:
                    self.refused.append((self._given(members[a]), self._given(members[b]), -mean))
                linked[a].discard(b)
                linked[b].discard(a)
                continue
            sums[a] += sums.pop(b)
            members[a] += members.pop(b)
            photos[a] |= photos.pop(b)
            hints[a] |= hints.pop(b)
            frozen[a] |= frozen.pop(b)
            block[a] = block[a] if block[a] == block.pop(b) else None
            for other in linked.pop(b):
                linked[other].discard(b)
                if other != a:
                    linked[other].add(a)
                    linked[a].add(other)
            for other in linked[a]:
                push(a, other)
        return list(members.values())

    def _hint_set(self, faces: list[int]) -> set[int]:
        return set() if self._hints is None else {int(h) for h in self._hints[faces] if h >= 0}

    def _block_of(self, faces: list[int]) -> int | None:
        """The block that holds them all; None: several."""
        blocks = np.unique(self._blocks[faces])
        return int(blocks[0]) if len(blocks) == 1 else None

    def _given(self, faces: list[int]) -> int:
        """The first face of those that was given away."""
        return min(face for face in faces if self._frozen[face])
