"""Reads the faces of a run out of `people/`, and lays them in the order of their person_ids.

Embeddings pass through a scratch file of this machine; one fragment of `people/` is in memory.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.fragments import Fragment
from curation.identities.false_match import same_photo_cosines
from curation.identities.vectors import SHARD_ROWS, Vectors, write_vectors
from curation.ledger import KEPT
from curation.outfits.appearance_judge import vector_of
from curation.people.appearance import CLOTHED
from curation.people.face import FaceStage
from curation.settings.identities import SeedSettings
from curation.storage import join, read_table

UNKNOWN = -1  # whether somebody wears something on the head
_HEADWEAR = list(CLOTHED).index("headwear")
PHOTO_ID_DIGITS = 64  # of a person_id: the photo's sha256


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


def collect_faces(
    folder: str, people: list[Fragment], seeds: SeedSettings, into: Collector, known: set[str]
) -> list[tuple[int, str]]:
    """Adds the faces of everyone still in to `into`, those in `known` (person_ids) aside.

    Returns (fragment, person_id) of everyone still in. Faces of people who were ruled out, but whose
    face was found good, are compared with those beside them: they are strangers, too. A photo with
    someone known was compared when they came in.
    """
    present = []
    for fragment in people:
        rows, vectors = FaceRows(), []
        for face in _faces(join(folder, fragment.name), into, known):
            present.append((fragment.index, face["person_id"]))
            if face["person_id"] in known:
                continue
            rows.person_id.append(face["person_id"])
            rows.fragment.append(fragment.index)
            rows.hint.append(face["subject_hint"])
            rows.collection.append(face["collection"])
            rows.seed.append(_is_seed(face, seeds))
            rows.headwear.append(_headwear(face["appearance"]))
            vectors.append(face["vector"])
        if vectors:
            into.add(rows, np.stack(vectors))
    return present


def _is_seed(face: dict[str, Any], seeds: SeedSettings) -> bool:
    x0, y0, x1, y1 = face["box"]
    return bool(min(x1 - x0, y1 - y0) >= seeds.min_face_px and face["score"] >= seeds.min_score)


def _headwear(appearance: bytes | None) -> int:
    """From the descriptors of the clothed regions: that of headwear is all zero where none is seen."""
    if appearance is None:
        return UNKNOWN
    return int(bool(vector_of(appearance)[_HEADWEAR].any()))


def _faces(path: str, into: Collector, known: set[str]) -> Iterator[dict[str, Any]]:
    columns = ["subject_hint", "collection", "person_ids", "person_verdicts", "person_decisions", "faces"]
    columns.append("appearance")
    seen, photo = [], []
    for number, row in enumerate(read_table(path, [*columns, "verdict"]).to_pylist()):
        was_compared = not known.isdisjoint(row["person_ids"] or [])
        for i, verdict in enumerate(row["person_verdicts"] or []):
            if not _face_was_good(row, i):
                continue
            face = row["faces"][i]
            vector = np.frombuffer(face["embedding"], "<f4")
            if not was_compared:
                seen.append(vector)
                photo.append(number)
            if verdict == KEPT and row["verdict"] == KEPT:
                yield {
                    "person_id": row["person_ids"][i],
                    "subject_hint": row["subject_hint"],
                    "collection": row["collection"],
                    "box": face["box"],
                    "score": face["score"],
                    "appearance": row["appearance"][i] if row["appearance"] else None,
                    "vector": vector,
                }
    if seen:
        into.strangers.append(same_photo_cosines(np.stack(seen), np.array(photo)))


def _face_was_good(row: dict[str, Any], i: int) -> bool:
    if not row["faces"] or row["faces"][i] is None or row["faces"][i].get("embedding") is None:
        return False
    return any(d["stage"] == FaceStage.name and d["verdict"] == KEPT for d in row["person_decisions"][i])
