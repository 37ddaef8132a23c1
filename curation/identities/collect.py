"""Reads the faces of a run out of its table of people; one fragment is in memory."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import list_array
from curation.fragments import Fragment
from curation.identities.faces import UNKNOWN, Collector, FaceRows, numbers
from curation.identities.false_match import same_photo_cosines
from curation.ledger import KEPT
from curation.people.appearance import CLOTHED, vector_of
from curation.people.face import FaceStage
from curation.run_tables import PhaseTable
from curation.settings.identities import SeedSettings

_HEADWEAR = list(CLOTHED).index("headwear")
_COLUMNS = ["person_id", "verdict", "decisions", "face", "appearance"]


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
        table = people.joined(fragment, _COLUMNS, ["subject_hint", "collection"])
        with_face = _with_good_face(table)
        everyone = zip(table["source_key"].to_pylist(), table["person_id"].to_pylist(), strict=True)
        compared = {photo for photo, person_id in everyone if person_id in known}
        into.strangers += _strangers([person for person in with_face if person["source_key"] not in compared])
        for person in with_face:
            if person["verdict"] != KEPT:
                continue
            present.append((fragment.index, person["person_id"]))
            if person["person_id"] in known:
                continue
            rows.person_id.append(person["person_id"])
            rows.fragment.append(fragment.index)
            rows.hint.append(person["subject_hint"])
            rows.collection.append(person["collection"])
            rows.seed.append(_is_seed(person["face"], seeds))
            rows.headwear.append(_headwear(person["appearance"]))
            vectors.append(_vector(person))
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


def _vector(person: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(person["face"]["embedding"], "<f4")


def _with_good_face(people: pa.Table) -> list[dict[str, Any]]:
    """The people whose face the stage `face` kept, also those whom a later stage ruled out."""
    lists = list_array(people["decisions"])
    ruled = lists.flatten()
    good = pc.and_(pc.equal(ruled.field("stage"), FaceStage.name), pc.equal(ruled.field("verdict"), KEPT))
    rows = pc.list_parent_indices(lists).filter(good)
    found: list[dict[str, Any]] = people.drop_columns(["decisions"]).take(rows).to_pylist()
    return found


def _strangers(people: list[dict[str, Any]]) -> list[np.ndarray]:
    """The cosines of faces that are beside each other on a photo."""
    if not people:
        return []
    photos = numbers([person["source_key"] for person in people])
    return [same_photo_cosines(np.stack([_vector(person) for person in people]), photos)]
