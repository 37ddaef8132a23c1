"""The neighbour graph of faces: who may be linked to whom.

An edge needs a cosine of at least the threshold, and to be mutual among the k nearest or to share
neighbours, and never joins two faces of one photo (a verification threshold alone links a few wrong
pairs for each face once there are millions: ../docs/pipelines.md, Identities).
"""

from dataclasses import dataclass

import faiss
import numpy as np

from curation.settings.groups import IdentitiesSettings

_BLOCK = 16_384  # faces searched at a time
_DIGITS = 5  # cosines are rounded, so that the last bits of a matrix product decide nothing


@dataclass(frozen=True)
class Edges:
    """Edges left < right with their cosines, each once."""

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
    embeddings = np.ascontiguousarray(embeddings)
    index.add(embeddings)
    near = np.full((count, k), -1, np.int32)
    cosines = np.zeros((count, k), np.float32)
    for start in range(0, count, _BLOCK):
        found_cosines, found = index.search(embeddings[start : start + _BLOCK], k)
        rows = np.arange(start, start + len(found))[:, None]
        found_cosines = np.round(found_cosines, _DIGITS)
        linked = (found >= 0) & (found != rows) & (found_cosines >= settings.link_cosine)
        near[start : start + len(found)] = np.where(linked, found, -1)
        cosines[start : start + len(found)] = found_cosines
    found_edges = [
        _edges_of(start, near, cosines, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)
    ]
    left, right, mutual, cosine = (np.concatenate(part) for part in zip(*found_edges, strict=True))
    del found_edges, cosines
    keep = photos[left] != photos[right]
    if settings.hints == "separate":
        keep &= (hints[left] < 0) | (hints[right] < 0) | (hints[left] == hints[right])
    for edge in np.flatnonzero(keep & ~mutual):
        a, b = near[left[edge]], near[right[edge]]
        keep[edge] = len(np.intersect1d(a[a >= 0], b[b >= 0])) >= settings.min_shared
    return Edges(left[keep], right[keep], cosine[keep])


def _edges_of(
    start: int, near: np.ndarray, cosines: np.ndarray, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(left, right, mutual, cosine) of the edges from the faces start..stop, each pair once."""
    source, place = np.nonzero(near[start:stop] >= 0)
    source = (source + start).astype(np.int32)
    target = near[source, place]
    mutual = (near[target] == source[:, None]).any(axis=1)
    # A mutual pair is seen from both ends; one of them is enough.
    once = ~mutual | (source < target)
    source, target = source[once], target[once]
    left, right = np.minimum(source, target), np.maximum(source, target)
    return left, right, mutual[once], cosines[source, place[once]]
