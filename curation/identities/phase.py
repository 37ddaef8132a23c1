"""The phase `identities`: faces of all fragments → clusters → one row a person with an identity.

Files: identities/_assigned-* (who is whom), identities/_suspects-* (what was in doubt),
identities/fragment-* (the barrier, one row a person, also those ruled out before). Embeddings lie in
identities/_search while it works, and are gone afterwards.
"""

from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curation.call_counter import CallCounter
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.identities.minors import Minors, read_minors, write_minors
from curation.ledger import DECISION, REJECTED, Counts, Outcome, at_least, is_kept, judged, rule_rows
from curation.settings.identities import IdentitiesSettings
from curation.stage import Stage
from curation.step import Context, run_step, work_of
from curation.storage import exists, filesystem, join, list_names, read_table, remove, write_table

VERSION = 8
ASSIGNED = pa.schema(
    [
        ("fragment", pa.int32()),
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
    index = _index(context.job)
    key = _key(context.job, people, index, None if index is None else index.aliases())
    folder = context.folder("identities")
    if not exists(join(folder, f"_assigned-{key}.parquet")):
        from curation.identities.assign import assign_with

        found = assign_with(
            context.engine,
            context.job,
            context.folder("identities", "_search"),
            context.folder("people"),
            people,
            settings,
            context.job.pipeline.seed,
            index,
        )
        # This may have joined identities by rule: the key holds those joins, so that a later start finds it.
        key = _key(context.job, people, index, found.aliases)
        context.progress.say(found.says)
        write_table(join(folder, f"_suspects-{key}.parquet"), found.suspects)
        write_table(join(folder, f"_assigned-{key}.parquet"), found.assigned, row_group_rows=4096)
    for other in list_names(folder):
        if (
            other.startswith(("_assigned-", "_suspects-", "_minors-"))
            and other.split("-", 1)[1] != f"{key}.parquet"
        ):
            remove(join(folder, other))
    name = f"_assigned-{key}.parquet"
    source = context.folder("people")
    age = context.job.pipeline.people.age
    minors = f"_minors-{key}.parquet"
    if age is not None and not exists(join(folder, minors)):
        write_minors(join(folder, minors), source, people, join(folder, name), age)
    return run_step(
        context,
        "identities",
        "identities",
        [(join(source, f.name), f.after(key), {"assigned": name, "minors": minors}) for f in people],
        open_identities,
        settings.resources,
    )


def _key(job: Job, people: list[Fragment], index: Any, aliases: dict[str, str] | None) -> str:
    """Names all that the phase depends on; of an index, its embedder and the joins that identities follow."""
    pipeline = job.pipeline
    state = None if index is None else [index.embedder, aliases]
    return fingerprint(
        ["identities", VERSION, pipeline.identities.ruling(), pipeline.seed, digest(people), state]
    )


def _index(job: Job) -> Any:
    """The index that the pipeline names, opened; None: it names none."""
    if job.pipeline.identities.index is None:
        return None
    from curation.identities.index import open_index

    return open_index(job.pipeline, job.models)


class Identity(Stage):
    """Stage `identity`: rejects a person too far from the others of its cluster, and one whose face is no
    seed and fits no cluster (`unattached`) or two of them (`between_identities`)."""

    name: ClassVar[str] = "identity"
    unit: ClassVar[str] = "person"

    def __init__(self, settings: IdentitiesSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every person still in."""
        columns = ["prototype_cosine", "attach_cosine", "attach_second", "attach_least"]
        rows = table.select(columns).to_pylist()
        outcomes = [
            self._outcome(row) if still_in else None
            for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _outcome(self, row: dict[str, Any]) -> Outcome:
        best = row["attach_cosine"]
        if best is None:
            return judged(
                [at_least("far_from_prototype", row["prototype_cosine"], self._settings.prototype_cosine)]
            )
        if best < row["attach_least"]:
            return judged([at_least("unattached", best, row["attach_least"])])
        ahead = best - row["attach_second"]
        if ahead < self._settings.attach_margin:
            return judged([at_least("between_identities", ahead, self._settings.attach_margin)])
        return Outcome(REJECTED, "unattached", detail="its cluster holds another face of the photo")


def open_identities(job: Job) -> Work:
    """Work: a fragment of photos with their people becomes one of people with their identities."""
    stage = Identity(job.pipeline.identities)
    age = job.pipeline.people.age

    def transform(task: Task) -> tuple[pa.Table, Counts]:
        fs, path = filesystem(join(job.run, "identities", task.detail["assigned"]))
        assigned = pq.read_table(path, filesystem=fs, filters=[("fragment", "=", task.index)])
        who: dict[str, dict[str, Any]] = {row["person_id"]: row for row in assigned.to_pylist()}
        table = persons(read_table(task.source, PERSON_SOURCE), who)
        counts = Counts()
        if age is not None:
            minors = Minors(age, read_minors(join(job.run, "identities", task.detail["minors"])))
            table = minors(table)
            counts.count("person", table["decisions"].to_pylist(), only=minors.name)
        table = stage(table)
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
        ("attach_cosine", pa.float64()),
        ("attach_second", pa.float64()),
        ("attach_least", pa.float64()),
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
                    **{name: given.get(name) for name in ASSIGNED.names[2:]},
                    "verdict": photo["person_verdicts"][i],
                    "decisions": photo["person_decisions"][i],
                }
            )
    return pa.Table.from_pylist(rows, schema=_PERSON_SCHEMA)
