"""The phase `identities`: faces of all fragments → clusters → one row a person with an identity.

Tables of the run: `assigned` (who is whom), `suspects` (what was in doubt), `identities` (one row a person,
also those ruled out before). Embeddings lie in `search` while it works, and are gone afterwards.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from curation.columns import join_rows
from curation.declared import Declared, Number, Reason, Threshold, counted
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment, digest
from curation.identities.faces import ASSIGNED
from curation.identities.index import IdentityIndex
from curation.ledger import DECISION, REJECTED, Outcome, at_least, is_kept, judged, rule_rows
from curation.meters import CallCounter
from curation.run_folder import Run
from curation.run_tables import PhaseTable
from curation.settings.identities import IdentitiesSettings
from curation.settings.people import AgeSettings
from curation.stage import Stage, with_columns
from curation.step import Context, Made, run_step, work_of
from curation.storage import read_table

VERSION = 8
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
    run = context.run
    if not run.assigned.has(key):
        from curation.identities.assign import (
            assign_with,  # workers need neither the search nor the clustering
        )

        found = assign_with(
            context.engine,
            run.search,
            run.people,
            people,
            settings,
            context.job.pipeline.seed,
            index,
        )
        # This may have joined identities by rule: the key holds those joins, so that a later start finds it.
        key = _key(context.job, people, index, found.aliases)
        context.progress.say(found.says)
        run.suspects.write(key, found.suspects)
        run.assigned.write(key, found.assigned, row_group_rows=4096)
    for cached in (run.assigned, run.suspects, run.minors):
        cached.keep_only(key)
    age = context.job.pipeline.people.age
    if age is not None and not run.minors.has(key):
        run.minors.write(key, minors_of(run.people, people, read_table(run.assigned.path(key)), age))
    return run_step(
        context,
        "identities",
        context.run.identities,
        [(run.people.path(f), f.after(key), {"key": key, "people": f.key}) for f in people],
        open_identities,
        settings.resources,
    )


def _key(
    job: Job, people: list[Fragment], index: IdentityIndex | None, aliases: dict[str, str] | None
) -> str:
    """Names all that the phase depends on; of an index, its embedder and the joins that identities follow."""
    pipeline = job.pipeline
    state = None if index is None else [index.embedder, aliases]
    return fingerprint(
        ["identities", VERSION, pipeline.identities.ruling(), pipeline.seed, digest(people), state]
    )


def _index(job: Job) -> IdentityIndex | None:
    """The index that the pipeline names, opened; None: it names none."""
    if job.pipeline.identities.index is None:
        return None
    from curation.identities.extend import open_index  # as above

    return open_index(job.pipeline, job.models)


class Identity(Stage):
    """Stage `identity`: rejects a person too far from the others of its cluster, and one whose face is no
    seed and fits no cluster (`unattached`) or two of them (`between_identities`)."""

    name: ClassVar[str] = "identity"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = IdentitiesSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("unattached", "the face is too poor to link by and fits no identity"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold(
            "far_from_prototype",
            "identities.prototype_cosine",
            "at least",
            "cosine to the mean of the others of the person",
        ),
        Threshold(
            "between_identities",
            "identities.attach_margin",
            "at least",
            "cosine by which the best identity is nearer than the second",
        ),
    )
    numbers: ClassVar[Mapping[str, Number]] = {
        "unattached": Number("at least", "cosine to the best identity")
    }
    moves: ClassVar[tuple[str, ...]] = (
        "identities.link_cosine",
        "identities.merge_cosine",
        "identities.split_gap",
    )

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
            return judged([self.check("far_from_prototype", row["prototype_cosine"])])
        if best < row["attach_least"]:
            return judged([at_least("unattached", best, row["attach_least"])])
        ahead = best - row["attach_second"]
        if ahead < self.settings.attach_margin:
            return judged([self.check("between_identities", ahead)])
        return Outcome(REJECTED, "unattached", detail="its cluster holds another face of the photo")


class Minors(Stage):
    """Stage `minor`: rejects everyone of the identities of which a photo votes that they are minors."""

    name: ClassVar[str] = "minor"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = AgeSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("minor", "a photo of this person votes that they are a minor", "people.age"),
    )

    def __init__(self, settings: AgeSettings, identities: Iterable[str]) -> None:
        super().__init__(settings)
        self._identities = frozenset(identities)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on those whom it rejects, and on nobody else."""
        names = table["identity"].to_pylist()
        outcomes = [
            Outcome(REJECTED, "minor", detail="a photo of this person votes so")
            if still_in and name in self._identities
            else None
            for name, still_in in zip(names, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)


STAGES: tuple[type[Declared], ...] = (Minors, Identity)


def open_identities(job: Job) -> Work:
    """Work: a fragment of people becomes one of people with their identities."""
    stage, run = Identity(job.pipeline.identities), Run(job.run)
    age = job.pipeline.people.age

    def transform(task: Task) -> Made:
        people = run.people.joined(Fragment(task.index, task.detail["people"]), PERSON_COLUMNS, PHOTO_COLUMNS)
        assigned = run.assigned.rows_of(task.detail["key"], task.index)
        table = persons(people, pa.Table.from_pylist(assigned, schema=ASSIGNED))
        if age is not None:
            names = read_table(run.minors.path(task.detail["key"]))["identity"].to_pylist()
            minors = Minors(age, names)
            table = minors(table)
        table = stage(table)
        return Made(table, counted(STAGES, {stage.unit: table["decisions"].to_pylist()}))

    return work_of(transform, CallCounter(job.calls))


PERSON_COLUMNS = ("person_id", "person_index", "box", "box_score", "regions", "verdict", "decisions")
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
        *ASSIGNED.remove(0),
        ("verdict", pa.string()),
        ("decisions", pa.list_(DECISION)),
    ]
)


def persons(people: pa.Table, assigned: pa.Table) -> pa.Table:
    """The people, each with the identity that it was given."""
    table = with_columns(join_rows(people, assigned, "person_id"), _PERSON_SCHEMA)
    return table.select(_PERSON_SCHEMA.names).cast(_PERSON_SCHEMA)


def minors_of(
    people: PhaseTable, fragments: Sequence[Fragment], assigned: pa.Table, settings: AgeSettings
) -> pa.Table:
    """One column `identity`, sorted: the identities of which a photo votes that they are minors.

    assigned  who is whom: person_id, identity
    """
    who = dict(zip(assigned["person_id"].to_pylist(), assigned["identity"].to_pylist(), strict=True))
    found: set[str] = set()
    for fragment in fragments:
        for row in people.read(fragment, ["person_id", "minor_score"]).to_pylist():
            score, person_id = row["minor_score"], row["person_id"]
            if score is not None and round(score, 4) >= settings.vote_from and person_id in who:
                found.add(who[person_id])
    return pa.table({"identity": pa.array(sorted(found), pa.string())})
