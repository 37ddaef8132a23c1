"""The phase `identities`: faces of all fragments → clusters → one row a person with an identity.

Files: identities/_assigned-* (who is whom), identities/fragment-* (the barrier, one row a person,
also those ruled out before). Embeddings lie in a scratch file of this machine while it works.
"""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.call_counter import CallCounter
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.ledger import DECISION, KEPT, Counts, Outcome, at_least, is_kept, judged, rule_rows
from curation.settings.groups import IdentitiesSettings
from curation.stage import Stage
from curation.step import Context, run_step, work_of
from curation.storage import exists, filesystem, join, list_names, read_table, remove, write_table

VERSION = 1
_ASSIGNED = pa.schema(
    [
        ("fragment", pa.int32()),
        ("person_id", pa.string()),
        ("identity", pa.string()),
        ("prototype_cosine", pa.float64()),
        ("cluster_size", pa.int32()),
    ]
)
# What a person row keeps of its photo.
PHOTO_COLUMNS = (
    "source_key",
    "file_name",
    "photo_id",
    "subject_hint",
    "collection",
    "width",
    "height",
)


def run_identities(context: Context, people: list[Fragment]) -> list[Fragment]:
    """Runs the phase; returns the fragments of `identities/`."""
    settings = context.job.pipeline.identities
    key = fingerprint(["identities", VERSION, settings.ruling(), context.job.pipeline.seed, digest(people)])
    name = f"_assigned-{key}.parquet"
    folder = context.folder("identities")
    for other in list_names(folder):
        if other.startswith("_assigned-") and other != name:
            remove(join(folder, other))
    if not exists(join(folder, name)):
        table = assign(context.folder("people"), people, settings, context.job.pipeline.seed)
        write_table(join(folder, name), table, row_group_rows=4096)
    source = context.folder("people")
    return run_step(
        context,
        "identities",
        "identities",
        [(join(source, f.name), f.after(key), {"assigned": name}) for f in people],
        open_identities,
        settings.resources,
    )


def assign(folder: str, people: list[Fragment], settings: IdentitiesSettings, seed: int) -> pa.Table:
    """Clusters all people still in; one row each. Embeddings lie in a memory-mapped scratch file."""
    from curation.identities.cluster import agglomerate, prototype_cosines
    from curation.identities.graph import build_edges

    ids: list[pa.Array] = []
    photos: list[np.ndarray] = []
    hints: list[pa.Array] = []
    fragments: list[np.ndarray] = []
    n_photos = 0
    with tempfile.TemporaryDirectory(prefix="persona-") as scratch:
        file = Path(scratch) / "embeddings.f32"
        dimension = 0
        with file.open("wb") as stream:
            for fragment in people:
                found = _faces(join(folder, fragment.name))
                if found is None:
                    continue
                person_ids, photo_of, hint, vectors = found
                dimension = vectors.shape[1]
                stream.write(vectors.tobytes())
                ids.append(person_ids)
                photos.append((photo_of + n_photos).astype(np.int32))
                hints.append(hint)
                fragments.append(np.full(len(person_ids), fragment.index, np.int32))
                n_photos += int(photo_of[-1]) + 1
        if not ids:
            return _ASSIGNED.empty_table()
        person_id = pa.concat_arrays(ids)
        ids.clear()
        # Faces are numbered by person_id, so that no number depends on where a photo lay.
        order = np.asarray(pc.sort_indices(person_id))
        person_id = person_id.take(order)
        mapped = np.memmap(file, np.float32, "r", shape=(len(person_id), dimension))
        embeddings = np.ascontiguousarray(mapped[order])
        del mapped
    pa.default_memory_pool().release_unused()
    photo = np.concatenate(photos)[order]
    hint = _numbers(pa.concat_arrays(hints).take(order))
    edges = build_edges(embeddings, photo, hint, settings)
    separate = hint if settings.hints == "separate" else None
    label = agglomerate(embeddings, photo, separate, edges, settings.merge_cosine)
    del edges
    cosine = prototype_cosines(embeddings, label)
    sizes = np.bincount(label, minlength=len(label))[label]
    roots, root_of = np.unique(label, return_inverse=True)
    names = [fingerprint(["identity", seed, person_id[root].as_py()]) for root in roots.tolist()]
    table = pa.table(
        {
            "fragment": np.concatenate(fragments)[order],
            "person_id": person_id,
            "identity": pa.array(names, pa.string()).take(pa.array(root_of)),
            "prototype_cosine": cosine,
            "cluster_size": sizes.astype(np.int32),
        },
        schema=_ASSIGNED,
    )
    return table.sort_by([("fragment", "ascending"), ("person_id", "ascending")])


def _faces(path: str) -> tuple[pa.Array, np.ndarray, pa.Array, np.ndarray] | None:
    """(person_id, row of the photo, hint, embeddings) of the people of a fragment that are still in."""
    columns = ["subject_hint", "person_ids", "person_verdicts", "faces", "verdict"]
    ids, photos, hints, vectors = [], [], [], []
    for number, row in enumerate(read_table(path, columns).to_pylist()):
        for i, verdict in enumerate(row["person_verdicts"] or []):
            if verdict == KEPT and row["verdict"] == KEPT:
                ids.append(row["person_ids"][i])
                photos.append(number)
                hints.append(row["subject_hint"])
                vectors.append(np.frombuffer(row["faces"][i]["embedding"], "<f4"))
    if not ids:
        return None
    return pa.array(ids, pa.string()), np.array(photos), pa.array(hints, pa.string()), np.stack(vectors)


def _numbers(values: pa.Array) -> np.ndarray:
    """A number for each different value; −1 for null."""
    encoded = values.dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)


class Identity(Stage):
    """Stage `identity`: a person too far from the others of its cluster is rejected."""

    name: ClassVar[str] = "identity"
    unit: ClassVar[str] = "person"

    def __init__(self, settings: IdentitiesSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every person still in."""
        least = self._settings.prototype_cosine
        outcomes: list[Outcome | None] = [
            judged([at_least("far_from_prototype", cosine, least)]) if still_in else None
            for cosine, still_in in zip(table["prototype_cosine"].to_pylist(), is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)


def open_identities(job: Job) -> Work:
    """Work: a fragment of photos with their people becomes one of people with their identities."""
    stage = Identity(job.pipeline.identities)

    def transform(task: Task) -> tuple[pa.Table, Counts]:
        fs, path = filesystem(join(job.run, "identities", task.detail["assigned"]))
        assigned = pq.read_table(path, filesystem=fs, filters=[("fragment", "=", task.index)])
        who: dict[str, dict[str, Any]] = {row["person_id"]: row for row in assigned.to_pylist()}
        table = stage(persons(read_table(task.source, PERSON_SOURCE), who))
        counts = Counts()
        counts.count("person", table["decisions"].to_pylist(), only=stage.name)
        return table, counts

    return work_of(transform, CallCounter(job.calls))


PERSON_SOURCE = [
    *PHOTO_COLUMNS,
    "verdict",
    "person_ids",
    "person_verdicts",
    "person_decisions",
    "boxes",
    "box_scores",
    "regions",
]
_PERSON_SCHEMA = pa.schema(
    [
        ("person_id", pa.string()),
        ("person_index", pa.int32()),
        *((name, pa.string()) for name in PHOTO_COLUMNS[:5]),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("box", pa.list_(pa.float32())),
        ("box_score", pa.float32()),
        ("regions", pa.list_(pa.string())),
        ("identity", pa.string()),
        ("prototype_cosine", pa.float64()),
        ("cluster_size", pa.int32()),
        ("verdict", pa.string()),
        ("decisions", pa.list_(DECISION)),
    ]
)


def persons(photos: pa.Table, who: dict[str, dict[str, Any]]) -> pa.Table:
    """One row for each person of the photos, with the identity that `who` gives by person_id."""
    rows = []
    for photo in photos.to_pylist():
        for i, person_id in enumerate(photo["person_ids"] or []):
            given = who.get(person_id, {})
            rows.append(
                {
                    **{name: photo[name] for name in PHOTO_COLUMNS},
                    "person_id": person_id,
                    "person_index": i,
                    "box": photo["boxes"][i],
                    "box_score": photo["box_scores"][i],
                    "regions": (photo["regions"][i] if photo["regions"] else None),
                    "identity": given.get("identity"),
                    "prototype_cosine": given.get("prototype_cosine"),
                    "cluster_size": given.get("cluster_size"),
                    "verdict": photo["person_verdicts"][i],
                    "decisions": photo["person_decisions"][i],
                }
            )
    return pa.Table.from_pylist(rows, schema=_PERSON_SCHEMA)
