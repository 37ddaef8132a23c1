"""The neighbour graph of faces: who may be linked to whom.

An edge needs a cosine of at least the threshold, and to be mutual among the k nearest or to share
neighbours, and never joins two faces of one photo (a verification threshold alone links a few wrong
pairs for each face once there are millions: ../docs/pipelines.md, Identities).
"""

from dataclasses import dataclass

import faiss
import numpy as np

from curation.settings.groups import IdentitiesSettings

_BLOCK = 65_536  # faces searched at a time
_DIGITS = 5  # cosines are rounded, so that the last bits of a matrix product decide nothing


@dataclass(frozen=True)
class Edges:
    """Edges left < right with their cosines, sorted."""

    left: np.ndarray
    right: np.ndarray
    cosine: np.ndarray


def build_edges(
    embeddings: np.ndarray, photos: np.ndarray, hints: np.ndarray, settings: IdentitiesSettings
) -> Edges:
    """The edges that the rules allow.

    embeddings  float32 [n, d], length 1
    photos      int [n]: faces of one photo share a number and are never linked
    hints       int [n]: faces with different hints are never linked where the settings say so; −1
                is no hint
    """
    count = len(embeddings)
    k = min(settings.neighbours + 1, count)
    if count < 2:
        empty = np.zeros(0, np.int64)
        return Edges(empty, empty, np.zeros(0, np.float32))
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings))
    near = np.full((count, k), -1, np.int64)
    keys, cosines = [], []
    for start in range(0, count, _BLOCK):
        found_cosines, found = index.search(np.ascontiguousarray(embeddings[start : start + _BLOCK]), k)
        rows = np.arange(start, start + len(found))[:, None]
        allowed = (found >= 0) & (found != rows) & (np.round(found_cosines, _DIGITS) >= settings.link_cosine)
        near[start : start + len(found)] = np.where(allowed, found, -1)
        source, target = np.broadcast_to(rows, found.shape)[allowed], found[allowed]
        keys.append(np.minimum(source, target) * count + np.maximum(source, target))
        cosines.append(np.round(found_cosines[allowed], _DIGITS))
    key, first, times = np.unique(np.concatenate(keys), return_index=True, return_counts=True)
    cosine = np.concatenate(cosines)[first]
    left, right = key // count, key % count
    keep = photos[left] != photos[right]
    if settings.hints == "separate":
        keep &= (hints[left] < 0) | (hints[right] < 0) | (hints[left] == hints[right])
    mutual = times > 1
    for edge in np.flatnonzero(keep & ~mutual):
        a, b = near[left[edge]], near[right[edge]]
        keep[edge] = len(np.intersect1d(a[a >= 0], b[b >= 0])) >= settings.min_shared
    return Edges(left[keep], right[keep], cosine[keep])
