"""The faces that identities are made of: what is known of each, and their order by person_id.

Embeddings pass through a scratch file of this machine.
"""

import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.identities.vectors import SHARD_ROWS, Vectors, write_vectors

UNKNOWN = -1  # whether somebody wears something on the head
PHOTO_ID_DIGITS = 64  # of a person_id: the photo's sha256
# Who is whom, a row a person.
ASSIGNED = pa.schema(
    [
        ("person_id", pa.string()),
        ("identity", pa.string()),
        ("prototype_cosine", pa.float64()),
        ("cluster_size", pa.int32()),
        # Of a face that is too poor to link and that no cluster took: null for all others.
        ("attach_cosine", pa.float64()),
        ("attach_second", pa.float64()),
        ("attach_least", pa.float64()),
    ]
)


@dataclass
class FaceRows:
    """One entry a face: what is known of it beside its embedding.

    person_id    photo_id and number of the person on the photo
    fragment     index of its fragment, −1 where it came from an index
    hint, collection  as the source gave them, or None
    seed         whether it may link
    headwear     1 where the parser saw some, 0 where it saw none, UNKNOWN where nothing was parsed; left
                 out, it is UNKNOWN for all

    Raises ValueError where there are not as many entries of each.
    """

    person_id: list[str] = field(default_factory=list)
    fragment: list[int] = field(default_factory=list)
    hint: list[str | None] = field(default_factory=list)
    collection: list[str | None] = field(default_factory=list)
    seed: list[bool] = field(default_factory=list)
    headwear: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.headwear = self.headwear or [UNKNOWN] * len(self)
        if {len(getattr(self, column.name)) for column in fields(self)} != {len(self)}:
            raise ValueError("faces need as many entries of each kind as there are person_ids")

    def __len__(self) -> int:
        return len(self.person_id)

    def photos(self) -> np.ndarray:
        """int [n]: the same number for faces of one photo."""
        return numbers([person_id[:PHOTO_ID_DIGITS] for person_id in self.person_id])

    def in_order(self, order: np.ndarray) -> "FaceRows":
        """The rows, rearranged."""
        places = order.tolist()
        return FaceRows(
            [self.person_id[i] for i in places],
            [self.fragment[i] for i in places],
            [self.hint[i] for i in places],
            [self.collection[i] for i in places],
            [self.seed[i] for i in places],
            [self.headwear[i] for i in places],
        )


def numbers(values: list[str | None] | list[str]) -> np.ndarray:
    """A number for each different value, from 0 in the order of first use; −1 for None."""
    encoded = pa.array(values, pa.string()).dictionary_encode()
    found: np.ndarray = np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)
    return found


class Collector:
    """Takes faces in any order and any parts; `close` lays them out by person_id."""

    def __init__(self) -> None:
        self.rows = FaceRows()
        self.strangers: list[np.ndarray] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="persona-")
        self._path = Path(self._scratch.name) / "embeddings.f32"
        self._stream = self._path.open("wb")
        self._dimension = 0

    def add(self, rows: FaceRows, embeddings: np.ndarray) -> None:
        """Adds faces; embeddings float32 [n, d], length 1."""
        self._dimension = embeddings.shape[1]
        self._stream.write(np.ascontiguousarray(embeddings, np.float32).tobytes())
        self.rows.person_id += rows.person_id
        self.rows.fragment += rows.fragment
        self.rows.hint += rows.hint
        self.rows.collection += rows.collection
        self.rows.seed += rows.seed
        self.rows.headwear += rows.headwear

    def close(self, folder: str) -> tuple[FaceRows, Vectors]:
        """The rows in order, and their vectors as shards of `folder`. At least one face."""
        self._stream.close()
        # Faces are numbered by person_id, so that no number depends on where a photo lay.
        order = np.argsort(np.array(self.rows.person_id), kind="stable")
        mapped = np.memmap(self._path, np.float32, "r", shape=(len(order), self._dimension))
        parts = (mapped[order[at : at + SHARD_ROWS]] for at in range(0, len(order), SHARD_ROWS))
        vectors = write_vectors(folder, parts, len(order), self._dimension)
        del mapped
        self._scratch.cleanup()
        return self.rows.in_order(order), vectors
