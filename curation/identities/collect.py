"""Reads the faces of a run out of its table of people; one fragment is in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from curation.fragments import Fragment
from curation.identities.faces import UNKNOWN, Collector, FaceRows
from curation.identities.false_match import same_photo_cosines
from curation.ledger import KEPT
from curation.people.appearance import CLOTHED, vector_of
from curation.people.face import FaceStage
from curation.run_tables import PhaseTable
from curation.settings.identities import SeedSettings

_HEADWEAR = list(CLOTHED).index("headwear")
_COLUMNS = [
    "subject_hint",
    "collection",
    "person_ids",
    "person_verdicts",
    "person_decisions",
    "faces",
    "appearance",
    "verdict",
]


def collect_faces(
    people: PhaseTable, fragments: list[Fragment], seeds: SeedSettings, into: Collector, known: set[str]
) -> list[tuple[int, str]]:
    """Adds the faces of everyone still in to `into`, those in `known` (person_ids) aside.

    Returns (fragment, person_id) of everyone still in. Faces of people who were ruled out, but whose
    face was found good, are compared with those beside them: they are strangers, too. A photo with
    someone known was compared when they came in.
    """
    present = []
    for fragment in fragments:
        rows, vectors = FaceRows(), []
        for face in _faces(people.read(fragment, _COLUMNS), into, known):
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


def _faces(people: pa.Table, into: Collector, known: set[str]) -> Iterator[dict[str, Any]]:
    seen, photo = [], []
    for number, row in enumerate(people.to_pylist()):
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
