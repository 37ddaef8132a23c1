"""Control of false merges: clusters of two tight halves are parted, doubtful ones are listed.

A split loses pairs, a merge poisons training: whoever is in doubt here is parted or named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from curation.identities.exact_cosines import mean_cosine, sum_of
from curation.identities.search import Pairs
from curation.identities.vectors import Vectors

_DIGITS = 5
_LEAST_TESTED = 6  # faces of a cluster; in fewer, two occasions of one person look like two people
_LEAST_HALF = 2  # faces; one alone has no cosine that would say how tight its side is
_ROUNDS = 5
_DENSE = 4000  # larger clusters are judged on so many of their members
_DOUBT = 0.75  # a cluster whose gap reaches this share of the plain one is suspected
_APART = 0.6  # headwear is what differs where so much more of one side wears some; the parser errs at times


@dataclass(frozen=True)
class Suspect:
    """A doubtful decision, by a face of each side.

    kind    `one_of_two`: a cluster whose halves lie nearly far enough apart to be parted;
            `two_of_one`: two clusters whose mean cosine lies just below what joins them
    cosine  mean between the two sides
    """

    kind: str
    a: int
    b: int
    cosine: float
    size_a: int
    size_b: int


@dataclass(frozen=True)
class SplitGaps:
    """How much nearer in themselves than to each other two sides must be to be parted.

    plain          of two sides that look alike apart from the face
    with_headwear  where one side wears something on the head and the other does not, for an embedder that
                   this alone moves; None: as `plain`
    headwear       int [n]: 1 worn, 0 not, −1 unknown; None: of nobody known
    """

    plain: float
    with_headwear: float | None = None
    headwear: np.ndarray | None = None

    def of(self, one: np.ndarray, other: np.ndarray) -> float:
        """The gap that parts these faces from those."""
        if self.with_headwear is None:
            return self.plain
        shares = []
        for faces in (one, other):
            worn = np.zeros(0) if self.headwear is None else self.headwear[faces]
            worn = worn[worn >= 0]
            if not len(worn):
                return self.plain
            shares.append(float(worn.mean()))
        explained = abs(shares[0] - shares[1]) >= _APART
        return max(self.plain, self.with_headwear) if explained else self.plain


def part_clusters(
    vectors: Vectors, label: np.ndarray, edges: Pairs, gaps: SplitGaps, fixed: np.ndarray | None = None
) -> tuple[np.ndarray, list[Suspect]]:
    """(label, suspects): every cluster that fails the test of halves or of bridges is parted in two.

    halves   the two least alike members gather the others around them; if the mean cosine between the
             two sides is the gap of `gaps` or more below that inside the looser side, they are two people
    bridges  the same test on the two sides of the weakest edge that holds the cluster together
    fixed    bool [n]: clusters with such a face are left as they are, and only suspected

    A cluster has six faces at least, a side two; the parts are tested again until none fails.
    """
    label = label.copy()
    suspects: list[Suspect] = []
    links = _links_by_cluster(label, edges)
    waiting = [faces for faces in members_of(label) if len(faces) >= _LEAST_TESTED]
    while waiting:
        faces = waiting.pop()
        tested = faces[:: -(-len(faces) // _DENSE)]
        rows = vectors.take(tested)
        cosines = (rows @ rows.T).astype(np.float64)
        best = None
        for side in (_halves(cosines), _bridge(tested, links.get(int(label[faces[0]])))):
            if side is None or min(side.sum(), (~side).sum()) < _LEAST_HALF:
                continue
            gap, between = _gap(cosines, side)
            found = (round(gap - gaps.of(tested[side], tested[~side]), _DIGITS), gap, between, side)
            best = found if best is None or found[0] > best[0] else best
        if best is None or best[1] < _DOUBT * gaps.plain:
            continue
        ahead, _, between, side = best
        a, b = tested[side], tested[~side]
        if ahead < 0 or (fixed is not None and fixed[faces].any()):
            suspects.append(Suspect("one_of_two", int(a[0]), int(b[0]), between, len(a), len(b)))
            continue
        if len(tested) < len(faces):  # the others go to the nearer side
            rest = np.setdiff1d(faces, tested)
            others = vectors.take(rest)
            nearer = others @ sum_of(rows[side]) / len(a) >= others @ sum_of(rows[~side]) / len(b)
            a, b = np.sort(np.r_[a, rest[nearer]]), np.sort(np.r_[b, rest[~nearer]])
        name = int(label[faces[0]])
        for part in (a, b):
            label[part] = part[0]
            links[int(part[0])] = links.get(name, np.zeros((0, 3)))
            if len(part) >= _LEAST_TESTED:
                waiting.append(part)
    return label, suspects


def members_of(label: np.ndarray) -> Iterator[np.ndarray]:
    """The faces of each cluster, ascending; clusters by their label."""
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(label[order]) != 0][: len(order)])
    for start, stop in pairwise([*starts.tolist(), len(order)]):
        yield order[start:stop]


def near_misses(
    vectors: Vectors, label: np.ndarray, edges: Pairs, merge_cosine: float, within: float
) -> list[Suspect]:
    """Two clusters of two faces or more, linked by an edge, less than `within` below `merge_cosine`."""
    sizes = np.bincount(label, minlength=len(label))
    a, b = label[edges.left], label[edges.right]
    apart = (a != b) & (sizes[a] > 1) & (sizes[b] > 1)
    found = np.unique(np.sort(np.stack([a[apart], b[apart]], axis=1), axis=1), axis=0)
    if not len(found):
        return []
    wanted = np.isin(label, found)
    faces = {int(label[part[0]]): part for part in members_of(np.where(wanted, label, -1)) if wanted[part[0]]}
    sums = {name: sum_of(vectors.take(part)) for name, part in faces.items()}
    suspects = []
    for first, second in found.tolist():
        sizes_of = (len(faces[first]), len(faces[second]))
        cosine = mean_cosine(sums[first], sizes_of[0], sums[second], sizes_of[1])
        if cosine >= merge_cosine - within:
            suspects.append(Suspect("two_of_one", first, second, cosine, *sizes_of))
    return suspects


def prototype_cosines(vectors: Vectors, label: np.ndarray) -> np.ndarray:
    """Cosine of each face to the mean of the others in its cluster; 1 where it is alone."""
    cosines = np.ones(len(label), np.float64)
    for faces in members_of(label):
        if len(faces) < 2:
            continue
        rows = vectors.take(faces).astype(np.float64)
        others = sum_of(rows) - rows
        lengths = np.maximum(np.linalg.norm(others, axis=1), 1e-12)
        cosines[faces] = np.round((rows * others).sum(axis=1) / lengths, _DIGITS)
    return cosines


def _halves(cosines: np.ndarray) -> np.ndarray:
    """bool [m]: the side of the first of the two least alike members."""
    i, j = divmod(int(np.argmin(cosines)), len(cosines))
    side = cosines[i] >= cosines[j]
    for _ in range(_ROUNDS):
        if side.all() or not side.any():
            break
        moved = cosines[:, side].mean(axis=1) >= cosines[:, ~side].mean(axis=1)
        if (moved == side).all():
            break
        side = moved
    return side


def _bridge(faces: np.ndarray, links: np.ndarray | None) -> np.ndarray | None:
    """bool [m]: one side of the weakest edge of the strongest tree through the cluster."""
    if links is None or not len(links):
        return None
    inside = np.isin(links[:, :2], faces).all(axis=1)
    left, right = (np.searchsorted(faces, links[inside, column].astype(np.int64)) for column in (0, 1))
    if not len(left):
        return None
    size = (len(faces), len(faces))
    tree = minimum_spanning_tree(coo_array((2.0 - links[inside, 2], (left, right)), shape=size)).tocoo()
    keep = np.arange(tree.nnz) != int(np.argmax(tree.data))
    rest = coo_array((tree.data[keep], (tree.row[keep], tree.col[keep])), shape=size).tocsr()
    reached = breadth_first_order(rest, 0, directed=False, return_predecessors=False)
    side = np.zeros(len(faces), bool)
    side[reached] = True
    return side


def _gap(cosines: np.ndarray, side: np.ndarray) -> tuple[float, float]:
    """(inside the looser side minus between, between): mean cosines over pairs."""
    between = float(cosines[np.ix_(side, ~side)].mean())
    inside = []
    for part in (side, ~side):
        size = int(part.sum())
        own = cosines[np.ix_(part, part)]
        inside.append(float(own.sum() - own.trace()) / (size * (size - 1)))
    return round(min(inside) - between, _DIGITS), round(between, _DIGITS)


def _links_by_cluster(label: np.ndarray, edges: Pairs) -> dict[int, np.ndarray]:
    """{cluster: [m, 3] (left, right, cosine)} of the edges inside clusters."""
    inside = label[edges.left] == label[edges.right]
    left, right, cosine = edges.left[inside], edges.right[inside], edges.cosine[inside]
    name = label[left]
    order = np.argsort(name, kind="stable")
    rows = np.stack([left[order], right[order], cosine[order].astype(np.float64)], axis=1)
    starts = np.flatnonzero(np.r_[True, np.diff(name[order]) != 0][: len(order)])
    bounds = pairwise([*starts.tolist(), len(order)])
    return {int(name[order[start]]): rows[start:stop] for start, stop in bounds}
