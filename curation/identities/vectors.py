"""Embeddings as memory-mapped shards: a process touches the rows that it asks for and holds no others.

Files: FOLDER/vectors-NNNNNN.f32 (`SHARD_ROWS` rows each, the last one fewer) and FOLDER/vectors.json.
They are working files of one run of the phase `identities`, and go with it.
"""

import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curation.identities.exact_cosines import on_grid
from curation.storage import is_local, join, local_path, read_bytes, write_bytes

SHARD_ROWS = 65_536


class Vectors:
    """float32 [count, dimension] rows of length 1, over the shards of a folder (path or URL).

    They lie on the grid of curation/identities/exact_cosines.py.

    Shards of an object store are copied to this machine when they are first asked for.
    """

    def __init__(self, folder: str, name: str = "vectors") -> None:
        about = json.loads(read_bytes(join(folder, f"{name}.json")))
        self.count: int = about["count"]
        self.dimension: int = about["dimension"]
        self._folder = folder
        self._name = name
        self._shards: dict[int, np.ndarray] = {}
        self._copies = None if is_local(folder) else tempfile.TemporaryDirectory(prefix="persona-")

    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.count // SHARD_ROWS)

    def shard(self, number: int) -> np.ndarray:
        """The rows of a shard, mapped, not read."""
        found = self._shards.get(number)
        if found is None:
            path = join(self._folder, f"{self._name}-{number:06d}.f32")
            if self._copies is not None:
                copy = Path(self._copies.name) / f"{number:06d}.f32"
                copy.write_bytes(read_bytes(path))
                path = str(copy)
            rows = min(SHARD_ROWS, self.count - number * SHARD_ROWS)
            found = np.memmap(local_path(path), np.float32, "r", shape=(rows, self.dimension))
            self._shards[number] = found
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), dimension], in the order of `rows`."""
        out = np.empty((len(rows), self.dimension), np.float32)
        if self.count <= SHARD_ROWS:
            np.take(self.shard(0), rows, axis=0, out=out)
            return out
        shard = rows // SHARD_ROWS
        for number in np.unique(shard).tolist():
            here = np.flatnonzero(shard == number)
            out[here] = self.shard(number)[rows[here] - number * SHARD_ROWS]
        return out


def write_vectors(
    folder: str, parts: Iterator[np.ndarray], count: int, dimension: int, name: str = "vectors"
) -> Vectors:
    """Writes `count` rows of length 1, which come in parts of any size, laid on the grid.

    One shard is in memory at a time.
    """
    waiting: list[np.ndarray] = []
    rows = written = 0
    for part in parts:
        waiting.append(np.asarray(part, np.float32))
        rows += len(part)
        while rows >= SHARD_ROWS:
            whole = np.concatenate(waiting)
            _write_shard(folder, name, written, whole[:SHARD_ROWS])
            waiting, rows, written = [whole[SHARD_ROWS:]], rows - SHARD_ROWS, written + 1
    if rows:
        _write_shard(folder, name, written, np.concatenate(waiting))
    # Whoever has mapped an earlier file of this name can tell by `made`.
    about = {"count": count, "dimension": dimension, "made": uuid.uuid4().hex}
    write_bytes(join(folder, f"{name}.json"), json.dumps(about).encode())
    return Vectors(folder, name)


def _write_shard(folder: str, name: str, number: int, rows: np.ndarray) -> None:
    write_bytes(join(folder, f"{name}-{number:06d}.f32"), on_grid(rows).tobytes())
