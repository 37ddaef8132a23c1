"""Pairs of like faces: every pair from a cosine on, exactly, or by cells where there are many faces.

By cells: the embeddings are projected on their leading components, k-means over a sample makes one cell
for every `cell_faces` faces, each face goes into its `probes` nearest cells, and all faces that share a
cell are compared; this in `tables` divisions that know nothing of each other. The comparisons grow with the
number of faces, not with its square. A pair is missed when the two share no cell; that is harmless inside a
cluster, since clusters are joined by the mean over all pairs and not over found ones. Cosines are exact, the
same on every processor (curation/identities/exact_cosines.py); which cell a face goes into is not.

Workers map shards of the embeddings (curation/identities/vectors.py), so none holds them all. Files in the
search folder: cells-*.npy, members.npy, starts.npy, pairs-*.npz.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

from curation.engine import Answer, Engine, Task, Work
from curation.identities.vectors import Vectors
from curation.settings.base import Resources
from curation.settings.identities import SearchSettings
from curation.storage import join, read_bytes, write_bytes

_TILE = 4096  # faces compared with as many others at a time
_REDUCED = 128  # leading components, which say which cells are near; with no more, nothing is projected
_SAMPLE = 32  # faces for each cell that k-means learns from …
_ROUNDS = 5  # … in so many rounds: cells need not be good, only even
_COVARIANCE_ROWS = 20_000
_CELL_DIGITS = 5  # of the cosine to a cell, whose last bits depend on the processor: only ties then do
_CELLS_A_TASK = 64
_WAITING = 8_000_000  # pairs that are read before those found twice are looked for


@dataclass(frozen=True)
class Pairs:
    """left < right with their cosines, each pair once, in order."""

    left: np.ndarray
    right: np.ndarray
    cosine: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def at_least(self, cosine: float) -> "Pairs":
        """Those with this cosine or a higher one."""
        near = self.cosine >= np.float32(cosine)
        return Pairs(self.left[near], self.right[near], self.cosine[near])


def find_pairs(
    engine: Engine,
    folder: str,
    vectors: Vectors,
    floor: float,
    settings: SearchSettings,
    resources: Resources,
    fresh: np.ndarray | None = None,
) -> Pairs:
    """Every pair with a cosine ≥ `floor` that the search finds; all of them up to `exact_faces` faces.

    folder   where `vectors` lie; the search adds its own files
    fresh    bool [n]: only pairs with a fresh face are wanted, and only they are compared; None: all pairs
    """
    detail: dict[str, Any] = {"folder": folder, "floor": floor, "fresh": fresh is not None}
    if fresh is not None:
        _save(join(folder, "fresh.npy"), fresh)
    if vectors.count <= settings.exact_faces:
        compared = vectors.count if fresh is None else int(fresh.sum())
        tiles = -(-compared // _TILE)
        tasks = [_task(i, folder, "tile", detail) for i in range(tiles)]
        list(engine.map(open_tiles, None, tasks, resources))
    else:
        tasks = _plan_cells(engine, folder, vectors, settings, resources, detail)
        list(engine.map(open_cells, None, tasks, resources))
    return _collect(join(folder, f"pairs-{task.index:06d}.npz") for task in tasks)


def _task(index: int, folder: str, kind: str, detail: dict[str, Any]) -> Task:
    return Task(index, folder, join(folder, f"pairs-{index:06d}.npz"), {**detail, "kind": kind})


def open_tiles(job: None) -> Work:
    """Work: a tile of faces is compared with itself and with every later one; only fresh ones make tiles."""

    def work(task: Task) -> Answer:
        vectors, fresh = _opened(task.detail["folder"], task.detail["fresh"])
        faces, compared = _fresh_first(np.arange(vectors.count), fresh)
        found = list(_in_tile(faces, task.index * _TILE, compared, vectors, task.detail["floor"]))
        return _write_pairs(task.target, _merge(_no_pairs(), found))

    return work


def _fresh_first(faces: np.ndarray, fresh: np.ndarray | None) -> tuple[np.ndarray, int]:
    """(the faces, fresh ones first; how many are fresh, all of them where `fresh` is None)."""
    if fresh is None:
        return faces, len(faces)
    new = fresh[faces]
    return np.concatenate([faces[new], faces[~new]]), int(new.sum())


def _in_tile(
    faces: np.ndarray, begin: int, compared: int, vectors: Vectors, floor: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(left, right, cosine) of the like pairs of a tile of faces with each other and with all later ones.

    The tile begins at `begin` and ends before `compared`: from there on, faces are not compared with each
    other. One product of whole embeddings: to rule pairs out by projections and fetch the others costs more.
    """
    rows = vectors.take(faces[begin : begin + _TILE])
    tile = rows[: compared - begin]
    for start in range(begin, len(faces), _TILE):
        if start > begin:
            rows = vectors.take(faces[start : start + _TILE])
        cosines = tile @ rows.T
        near = cosines >= np.float32(floor)
        i, j = np.nonzero(np.triu(near, 1) if start == begin else near)
        a, b = faces[i + begin], faces[j + start]
        yield np.minimum(a, b), np.maximum(a, b), cosines[i, j]


# --- cells -------------------------------------------------------------------------------------------


def _plan_cells(
    engine: Engine,
    folder: str,
    vectors: Vectors,
    settings: SearchSettings,
    resources: Resources,
    detail: dict[str, Any],
) -> list[Task]:
    """Makes the cells and says which are compared in which task."""
    cells = max(vectors.count // settings.cell_faces, 1)
    basis = _leading(vectors)
    sample = _projected(vectors.take(_every(vectors.count, cells * _SAMPLE)), basis)
    tables: list[np.ndarray] = []
    for seed in range(settings.tables):
        # faiss warns below 39 points a cell; so rough a grid is what is wanted here.
        means = faiss.Kmeans(
            sample.shape[1], cells, niter=_ROUNDS, seed=seed + 1, spherical=True, min_points_per_centroid=1
        )
        means.train(sample)
        tables.append(np.asarray(means.centroids))
    _save(join(folder, "centroids.npy"), np.stack(tables))
    if basis is not None:
        _save(join(folder, "basis.npy"), basis)
    del sample
    how = {**detail, "probes": min(settings.probes, cells), "reduced": basis is not None}
    assigning = [Task(i, folder, join(folder, f"cells-{i:06d}.npy"), how) for i in range(vectors.shards())]
    list(engine.map(open_assigning, None, assigning, resources))
    near = np.concatenate([_load(task.target) for task in assigning])
    total = cells * settings.tables
    faces = np.repeat(np.arange(len(near), dtype=np.int32), near.shape[1])
    order = np.argsort(near.ravel(), kind="stable")
    _save(join(folder, "members.npy"), faces[order])
    _save(join(folder, "starts.npy"), np.searchsorted(near.ravel()[order], np.arange(total + 1)))
    return [
        _task(i, folder, "cells", {**how, "first": first, "last": min(first + _CELLS_A_TASK, total)})
        for i, first in enumerate(range(0, total, _CELLS_A_TASK))
    ]


def _every(count: int, wanted: int) -> np.ndarray:
    """`wanted` numbers below `count`, evenly spaced; faces are numbered by hashes: as good as drawn."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def _leading(vectors: Vectors) -> np.ndarray | None:
    """float32 [dimension, 128]: the directions with the largest second moments; None: keep all."""
    if vectors.dimension <= _REDUCED:
        return None
    sample = vectors.take(_every(vectors.count, _COVARIANCE_ROWS)).astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(axes[:, -_REDUCED:].astype(np.float32))


def _projected(rows: np.ndarray, basis: np.ndarray | None) -> np.ndarray:
    """The rows on the leading components, of length 1 again."""
    if basis is None:
        return rows
    short = rows @ basis
    return np.ascontiguousarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12))


def open_assigning(job: None) -> Work:
    """Work: a shard of embeddings is projected, and each face gets its nearest cells."""

    def work(task: Task) -> Answer:
        folder = task.detail["folder"]
        vectors, _ = _opened(folder, False)
        basis = _load(join(folder, "basis.npy")) if task.detail["reduced"] else None
        centroids = _load(join(folder, "centroids.npy"))
        short = _projected(vectors.shard(task.index), basis)
        probes, cells = task.detail["probes"], centroids.shape[1]
        near = np.empty((len(short), len(centroids) * probes), np.int32)
        for start in range(0, len(short), _TILE):
            part = slice(start, start + _TILE)
            for table, means in enumerate(centroids):
                cosines = np.round(short[part] @ means.T, _CELL_DIGITS)
                best = np.argpartition(-cosines, probes - 1, axis=1)[:, :probes]
                near[part, table * probes : (table + 1) * probes] = best + table * cells
        _save(task.target, near)
        return {"rows": len(near)}

    return work


def open_cells(job: None) -> Work:
    """Work: all faces that share one of the task's cells are compared."""

    def work(task: Task) -> Answer:
        folder, floor = task.detail["folder"], task.detail["floor"]
        vectors, fresh = _opened(folder, task.detail["fresh"])
        members, starts = _members(folder)
        found = []
        for cell in range(task.detail["first"], task.detail["last"]):
            faces = members[starts[cell] : starts[cell + 1]].astype(np.int64)
            faces, compared = _fresh_first(faces, fresh)
            for begin in range(0, compared, _TILE):
                found += list(_in_tile(faces, begin, compared, vectors, floor))
        # Where few vectors differ, all cells of a task may be empty.
        return _write_pairs(task.target, _merge(_no_pairs(), found))

    return work


# --- files -------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _vectors(folder: str, name: str, made: bytes) -> Vectors:
    return Vectors(folder, name)


def _opened(folder: str, with_fresh: bool) -> tuple[Vectors, np.ndarray | None]:
    about = read_bytes(join(folder, "vectors.json"))
    return _vectors(folder, "vectors", about), _load(join(folder, "fresh.npy")) if with_fresh else None


def _members(folder: str) -> tuple[np.ndarray, np.ndarray]:
    return _load(join(folder, "members.npy")), _load(join(folder, "starts.npy"))


def _save(path: str, array: np.ndarray) -> None:
    sink = io.BytesIO()
    np.save(sink, array)
    write_bytes(path, sink.getvalue())


def _load(path: str) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(read_bytes(path)))
    return found


def _write_pairs(path: str, parts: Sequence[np.ndarray]) -> Answer:
    left, right, cosine = parts
    sink = io.BytesIO()
    np.savez(sink, left=left.astype(np.int32), right=right.astype(np.int32), cosine=cosine.astype(np.float32))
    write_bytes(path, sink.getvalue())
    return {"rows": len(left)}


def _collect(paths: Iterator[str]) -> Pairs:
    """All pairs, each once. What several tasks found is thrown out on the way, not at the end of it all."""
    merged = _no_pairs()
    waiting: list[tuple[np.ndarray, ...]] = []
    rows = 0
    for path in paths:
        part = np.load(io.BytesIO(read_bytes(path)))
        waiting.append((part["left"], part["right"], part["cosine"]))
        rows += len(part["left"])
        if rows > max(_WAITING, len(merged[0])):
            merged, waiting, rows = _merge(merged, waiting), [], 0
    return Pairs(*_merge(merged, waiting))


def _no_pairs() -> tuple[np.ndarray, ...]:
    return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)


def _merge(
    merged: tuple[np.ndarray, ...], waiting: Sequence[tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    if not waiting:
        return merged
    return _once([np.concatenate(columns) for columns in zip(merged, *waiting, strict=True)])


def _once(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair once, by (left, right); a pair that shares several cells was found in each of them."""
    left, right, cosine = parts
    key = left.astype(np.int64) << 32 | right.astype(np.int64)
    _, first = np.unique(key, return_index=True)
    return left[first], right[first], cosine[first]
