"""Gives everyone of a run an identity: by clusters of the run alone, or by an index that it extends."""

import tempfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.engine import Engine, InlineEngine
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.identities.collect import collect_faces
from curation.identities.extend import extend, start_of
from curation.identities.faces import ASSIGNED, Collector, FaceRows, numbers
from curation.identities.grouping import FaceSet, Grouping, group_faces
from curation.identities.index import IdentityIndex
from curation.identities.vectors import Vectors
from curation.run_tables import PhaseTable
from curation.settings.identities import IdentitiesSettings
from curation.storage import join, remove

LEAST_RECALL = 0.5  # of one person's pairs; less is said in the line of the phase
ASSIGNED_BY_FRAGMENT = pa.schema([("fragment", pa.int32()), *ASSIGNED])
SUSPECTS = pa.schema(
    [
        ("kind", pa.string()),
        ("identity_a", pa.string()),
        ("identity_b", pa.string()),
        ("person_a", pa.string()),
        ("person_b", pa.string()),
        ("cosine", pa.float64()),
        ("size_a", pa.int32()),
        ("size_b", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Assignment:
    """`assigned` (`ASSIGNED_BY_FRAGMENT`) has a row a person still in, `suspects` (`SUSPECTS`) a row a doubt.

    `aliases` are those of the index that `assigned` follows, with the joins that were made by rule meanwhile;
    None: there is no index.
    """

    assigned: pa.Table
    suspects: pa.Table
    says: str
    aliases: dict[str, str] | None = None


def assign(people: PhaseTable, settings: IdentitiesSettings, seed: int) -> pa.Table:
    """The `ASSIGNED_BY_FRAGMENT` of a table `people` under other settings, in this process; no index and
    nothing kept."""
    with tempfile.TemporaryDirectory(prefix="persona-") as scratch:
        where = join(scratch, "search")
        fragments = people.fragments()
        return assign_with(InlineEngine(), where, people, fragments, settings, seed, None).assigned


def assign_with(
    engine: Engine,
    search: str,
    table: PhaseTable,
    people: list[Fragment],
    settings: IdentitiesSettings,
    seed: int,
    index: IdentityIndex | None,
) -> Assignment:
    """Clusters everyone still in of the table `people`; embeddings lie in `search` while it works.

    With an index, those whom it knows keep their identity; the others join it, and the index is extended
    before this returns.
    """
    collector = Collector()
    known = {} if index is None else index.load(collector)
    earlier = len(collector.strangers)
    present = collect_faces(table, people, settings.seeds, collector, set(known))
    if not present:
        nobody = (ASSIGNED_BY_FRAGMENT.empty_table(), SUSPECTS.empty_table(), "identities: no face to group")
        return Assignment(*nobody, _aliases(index))
    remove(search, recursive=True)
    try:
        rows, vectors = collector.close(search)
        faces = face_set(rows, vectors, collector.strangers)
        given = [known.get(person_id) for person_id in rows.person_id]
        start, fresh = (None, None) if index is None else start_of(given, index)
        grouping = group_faces(engine, search, faces, settings, start, fresh)
        if index is None or start is None:
            names = born(rows.person_id, grouping.label, seed)
        else:
            strangers = _joined(collector.strangers[earlier:])
            names = extend(index, rows, vectors, given, start, grouping, seed, strangers)
    finally:
        remove(search, recursive=True)
    assigned = _assigned(present, rows, grouping, names)
    return Assignment(assigned, _suspects(rows, grouping, names), _said(grouping), _aliases(index))


def face_set(rows: FaceRows, vectors: Vectors, strangers: list[np.ndarray]) -> FaceSet:
    """The rows as arrays. Faces without a collection make up one."""
    collection = numbers([name or "" for name in rows.collection])
    alike = np.sort(_joined(strangers))  # in an order of their own, not in that of the fragments
    return FaceSet(
        vectors, rows.photos(), numbers(rows.hint), collection, np.array(rows.seed), alike,
        np.array(rows.headwear),
    )  # fmt: skip


def _joined(strangers: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(strangers) if strangers else np.zeros(0, np.float32)


def born(person_ids: list[str], label: np.ndarray, seed: int) -> list[str]:
    """The identity of each face: a hash of the seed and of its cluster's least person_id."""
    roots, root_of = np.unique(label, return_inverse=True)
    names = [identity_name(seed, person_ids[root]) for root in roots.tolist()]
    return [names[place] for place in root_of.tolist()]


def identity_name(seed: int, least_person_id: str) -> str:
    """16 hex digits."""
    return fingerprint(["identity", seed, least_person_id])


def _aliases(index: IdentityIndex | None) -> dict[str, str] | None:
    return None if index is None else index.aliases()


def _assigned(
    present: list[tuple[int, str]], rows: FaceRows, grouping: Grouping, names: list[str]
) -> pa.Table:
    place = {person_id: i for i, person_id in enumerate(rows.person_id)}
    at = np.array([place[person_id] for _, person_id in present])
    counted = dict(zip(*np.unique(np.array(names), return_counts=True), strict=True))
    alone = ~np.array(rows.seed) & ~np.isnan(grouping.best)
    sizes = np.array([counted[name] for name in names], np.int32)
    alone &= sizes == 1

    def of_alone(values: np.ndarray) -> pa.Array:
        return pa.array(values[at], pa.float64(), mask=~alone[at])

    table = pa.table(
        {
            "fragment": pa.array([fragment for fragment, _ in present], pa.int32()),
            "person_id": [person_id for _, person_id in present],
            "identity": [names[i] for i in at.tolist()],
            "prototype_cosine": grouping.prototype[at],
            "cluster_size": sizes[at],
            "attach_cosine": of_alone(grouping.best),
            "attach_second": of_alone(grouping.second),
            "attach_least": of_alone(np.full(len(rows), grouping.cosines.between)),
        },
        schema=ASSIGNED_BY_FRAGMENT,
    )
    return table.sort_by([("fragment", "ascending"), ("person_id", "ascending")])


def _suspects(rows: FaceRows, grouping: Grouping, names: list[str]) -> pa.Table:
    found = [
        {
            "kind": suspect.kind,
            "identity_a": names[suspect.a],
            "identity_b": names[suspect.b],
            "person_a": rows.person_id[suspect.a],
            "person_b": rows.person_id[suspect.b],
            "cosine": suspect.cosine,
            "size_a": suspect.size_a,
            "size_b": suspect.size_b,
        }
        for suspect in grouping.suspects
    ]
    table = pa.Table.from_pylist(found, schema=SUSPECTS)
    return table.sort_by([(name, "ascending") for name in ("kind", "person_a", "person_b")])


def _said(grouping: Grouping) -> str:
    counts = grouping.report()
    strangers = counts["strangers"]
    measured = "link_cosine" if strangers is None else f"{strangers['pairs']} pairs of strangers"
    if strangers is not None and strangers["doubled"]:
        measured += f", {strangers['doubled']} of one person twice on a photo left out"
    return (
        f"identities: {counts['faces']} faces, {counts['clusters']} clusters ({counts['alone']} of one face, "
        f"the largest of {counts['largest']}), linked from {counts['link_cosine']:g} on ({measured}), "
        f"{counts['suspects']} suspected{_lost(grouping.cosines.recall)}"
    )


def _lost(recall: float | None) -> str:
    """What the cosine that joins costs, where that is more than `LEAST_RECALL` allows unsaid."""
    if recall is None or recall >= LEAST_RECALL:
        return ""
    return (
        f"; only {recall:.0%} of the pairs of one person lie there by the measured curves: the embedder "
        "tells so many faces apart no better, so expect people in several identities"
    )
