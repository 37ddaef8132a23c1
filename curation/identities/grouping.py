"""From embeddings to clusters: the steps in their order, on one set of faces; the graph of who may be linked.

An edge needs at least the cosine that joins two clusters (a mean that reaches it has such a pair), and to be
mutual among the k nearest or to share neighbours, and never joins two faces of one photo.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from curation.engine import Engine
from curation.identities.attach import Attached, attach
from curation.identities.cluster import Start, agglomerate
from curation.identities.control import SplitGaps, Suspect, near_misses, part_clusters, prototype_cosines
from curation.identities.linking import LinkCosines, LinkEvidence, fixed_cosines
from curation.identities.search import Pairs, find_pairs
from curation.identities.settling import settle
from curation.identities.vectors import Vectors
from curation.settings.identities import IdentitiesSettings


def build_edges(
    pairs: Pairs,
    photos: np.ndarray,
    hints: np.ndarray,
    blocks: np.ndarray,
    seeds: np.ndarray,
    cosines: LinkCosines,
    settings: IdentitiesSettings,
) -> Pairs:
    """Those of the pairs that the rules allow as edges.

    photos  int [n]: faces of one photo share a number and are never linked
    hints   int [n]: faces with different hints are never linked where the settings say so; −1 is none
    blocks  int [n]: the face's collection
    seeds   bool [n]: faces good enough to link
    """
    left, right = pairs.left, pairs.right
    least = np.where(blocks[left] == blocks[right], cosines.inside, cosines.between)
    keep = (pairs.cosine >= least.astype(np.float32)) & may_join(pairs, photos, hints, seeds, settings)
    left, right, cosine = left[keep], right[keep], pairs.cosine[keep]
    place = _places(left, right, cosine)
    near = place < settings.neighbours  # [2, edges]: among the k nearest of the left, of the right
    keep = near[0] & near[1]
    one_sided = np.flatnonzero((near[0] | near[1]) & ~keep)
    if len(one_sided):
        lists = _Lists(left, right, near, len(photos))
        for edge in one_sided.tolist():
            keep[edge] = lists.shared(left[edge], right[edge]) >= settings.min_shared
    return Pairs(left[keep], right[keep], cosine[keep])


def may_join(
    pairs: Pairs, photos: np.ndarray, hints: np.ndarray, seeds: np.ndarray, settings: IdentitiesSettings
) -> np.ndarray:
    """bool [pairs]: both faces are good enough to link, and neither a photo nor a hint keeps them apart."""
    left, right = pairs.left, pairs.right
    may = seeds[left] & seeds[right] & (photos[left] != photos[right])
    if settings.hints == "separate":
        may &= (hints[left] < 0) | (hints[right] < 0) | (hints[left] == hints[right])
    return may


def _places(left: np.ndarray, right: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """[2, edges]: the place of each edge in the list of its left and of its right face, nearest first."""
    face, other = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.lexsort((other, -np.concatenate([cosine, cosine]), face))
    sorted_face = face[order]
    starts = np.searchsorted(sorted_face, sorted_face, side="left")
    place = np.empty(len(face), np.int64)
    place[order] = np.arange(len(face)) - starts
    return place.reshape(2, -1)


class _Lists:
    """The k nearest of each face."""

    def __init__(self, left: np.ndarray, right: np.ndarray, near: np.ndarray, count: int) -> None:
        face = np.concatenate([left[near[0]], right[near[1]]])
        other = np.concatenate([right[near[0]], left[near[1]]])
        order = np.argsort(face, kind="stable")
        self._others = other[order]
        self._starts = np.searchsorted(face[order], np.arange(count + 1))

    def shared(self, a: int, b: int) -> int:
        """How many faces are in both lists."""
        mine = self._others[self._starts[a] : self._starts[a + 1]]
        theirs = self._others[self._starts[b] : self._starts[b + 1]]
        return len(np.intersect1d(mine, theirs))


_BELOW = 0.1  # pairs this far below an edge's cosine still name the clusters that a lone face is held against
_NEAR_MISS = 0.05  # below the cosine that joins


@dataclass(frozen=True)
class FaceSet:
    """Faces in an order that their names give; every array has one entry a face.

    photos   int: faces of one photo share a number
    hints    int: the subject_hint, −1 for none
    blocks   int, from 0: the collection
    seeds    bool: good enough to link
    headwear int: 1 worn, 0 not, −1 unknown; None: of nobody known

    `strangers` are cosines between two faces of one photo, of any number of pairs.
    """

    vectors: Vectors
    photos: np.ndarray
    hints: np.ndarray
    blocks: np.ndarray
    seeds: np.ndarray
    strangers: np.ndarray
    headwear: np.ndarray | None = None


@dataclass(frozen=True)
class Grouping:
    """Who is whom, and what was in doubt.

    label      int [n]: the cluster of each face (its least member)
    prototype  float64 [n]: cosine to the mean of the others of its cluster; 1 where it is alone
    best, second  float64 [n]: of lone faces, cosines to the nearest two prototypes; nan for the others
    cosines    that join; the one between collections attaches, too
    refused    joins of two frozen clusters, as (face, face, mean cosine)
    """

    label: np.ndarray
    prototype: np.ndarray
    best: np.ndarray
    second: np.ndarray
    cosines: LinkCosines
    suspects: list[Suspect]
    refused: list[tuple[int, int, float]] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Numbers for people: counts, the curve, the threshold."""
        sizes = np.bincount(self.label, minlength=len(self.label))
        sizes = sizes[sizes > 0]
        curve = self.cosines.curve
        return {
            "faces": len(self.label),
            "clusters": len(sizes),
            "alone": int((sizes == 1).sum()),
            "largest": int(sizes.max(initial=0)),
            "link_cosine": round(self.cosines.between, 4),
            "strangers": None if curve is None else {"pairs": curve.pairs, "doubled": curve.doubled},
            "recall": self.cosines.recall,
            "suspects": len(self.suspects),
        }


@dataclass(frozen=True)
class _Linked:
    """What the steps from edges to attached faces made at some cosines."""

    attached: Attached
    near: Pairs
    suspects: list[Suspect]
    refused: list[tuple[int, int, float]]


def group_faces(
    engine: Engine,
    folder: str,
    faces: FaceSet,
    settings: IdentitiesSettings,
    start: Start | None = None,
    fresh: np.ndarray | None = None,
) -> Grouping:
    """Clusters the faces; `folder` holds their vectors and takes the working files of the search.

    start   clusters that are there already (an index); they may grow and are never joined or parted
    fresh   bool [n]: only these are linked anew, to each other and to what is there
    """
    evidence, cosines = None, fixed_cosines(settings)
    floor = max(cosines.least() - _BELOW, -1.0)
    if settings.false_links is not None and len(faces.photos) > 1:
        evidence = LinkEvidence(faces.strangers, faces.vectors, faces.photos)
        floor = evidence.floor()  # nothing is joined below, and what joins lies well above
    pairs = find_pairs(engine, folder, faces.vectors, floor, settings.search, settings.resources, fresh)
    hints = faces.hints if settings.hints == "separate" else None
    fixed = None if start is None else start.frozen
    gaps = SplitGaps(settings.split_gap, settings.split_gap_headwear, faces.headwear)

    def linked(at: LinkCosines) -> tuple[np.ndarray, _Linked]:
        edges = build_edges(pairs, faces.photos, faces.hints, faces.blocks, faces.seeds, at, settings)
        clusters = agglomerate(faces.vectors, faces.photos, hints, edges, at, faces.blocks, start)
        label, suspects = part_clusters(faces.vectors, clusters.label, edges, gaps, fixed)
        least = np.full(len(label), at.between)
        near = pairs.at_least(at.least() - _BELOW)
        attached = attach(faces.vectors, label, faces.photos, hints, near, least, settings.attach_margin)
        return attached.label, _Linked(attached, near, suspects, clusters.refused)

    if evidence is None or settings.false_links is None:
        _, made = linked(cosines)
    else:
        cosines = evidence.weigh(pairs, faces.photos, faces.blocks, fresh, floor, settings)
        # A lone face is held against clusters down to _BELOW under the cosine: these pairs must be there.
        cosines = replace(cosines, lowest=max(cosines.lowest, round(floor + _BELOW, 4)))
        may = may_join(pairs, faces.photos, faces.hints, faces.seeds, settings)
        looking = faces.seeds if fresh is None else faces.seeds & fresh
        cosines, made = settle(cosines, pairs, may, faces.blocks, looking, settings.false_links, linked)
    label = made.attached.label
    missed = near_misses(faces.vectors, label, made.near, cosines.between, _NEAR_MISS)
    prototype = prototype_cosines(faces.vectors, label)
    return Grouping(
        label, prototype, made.attached.best, made.attached.second, cosines,
        made.suspects + missed, made.refused,
    )  # fmt: skip
