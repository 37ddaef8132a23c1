"""Sweeps of thresholds on photos and people: the stages decide again from what they stored.

It is the stages' own code that decides, so a point says what a run with that setting would. People whom a
looser rule lets through, but whom a later model was never asked about, are counted as unmeasured.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import list_array
from curation.evaluation.boxes import match_boxes
from curation.evaluation.truth import Truth
from curation.fragments import Fragment
from curation.ledger import FAILED, KEPT, NOT_MEASURED
from curation.meters import CallCounter
from curation.models import Model
from curation.people.chain import ChainContext
from curation.people.stages import people_stages
from curation.photos.pixels import Pixels
from curation.photos.screen import Screen
from curation.report.sweep import Point, Question, Sweep, share
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.stage import Stage
from curation.storage import read_table

MOST_PHOTOS = 5_000  # decided again for each value; of a larger run a part that is spread evenly


def sweep_people(asked: Question) -> Sweep:
    """People that are still in after the phase `people`.

    Precision: of those, the ones that are a main person of the truth. Recall: of all main people on
    photos that came into the phase.
    """
    truth, tables = asked.truth, list(_people_tables(asked.run))
    wanted = 0 if truth is None else sum(_main_people(truth, table) for table in tables)
    points = []
    for value, changed in asked.settings:
        stages = _stages(changed)
        kept = unmeasured = right = 0
        for table in tables:
            for stage in stages:
                table = stage.decide(table)
            verdicts = list_array(table["person_verdicts"]).flatten().to_pylist()
            kept += verdicts.count(KEPT)
            unmeasured += verdicts.count(FAILED) + _photos_not_measured(table)
            right += 0 if truth is None else _main_kept(truth, table)
        precision = None if truth is None else share(right, kept)
        points.append(
            Point(value, kept, unmeasured, precision, None if truth is None else share(right, wanted))
        )
    seen = sum(table.num_rows for table in tables)
    says = f"people still in after the phase people, of {seen} photos that came into it"
    return asked.answer("people", says, seen, points)


def sweep_photos(asked: Question) -> Sweep:
    """Photos that the stage `screen` lets through; what a looser limit would read anew is not counted."""
    tables = []
    for table in Run(asked.run).screened.by_index(_SCREENED).values():
        lists = list_array(table["decisions"])
        first = lists.flatten().take(lists.offsets[:-1])
        read = table.filter(pc.equal(first.field("verdict"), KEPT))
        tables.append(read.drop_columns(["verdict", "decisions"]))
    points = []
    for value, changed in asked.settings:
        stage = Screen(changed.photos.screen)
        kept = sum(stage.decide(table)["verdict"].to_pylist().count(KEPT) for table in tables)
        points.append(Point(value, kept))
    seen = sum(table.num_rows for table in tables)
    says = f"photos that the stage screen lets through, of {seen} that were read"
    return asked.answer("photos", says, seen, points)


_SCREENED = [
    "photo_id",
    "n_bytes",
    "format",
    "width",
    "height",
    "frames",
    "phash",
    "undecoded",
    "licence",
    "consent",
    "verdict",
    "decisions",
]
# Large, and read by no rule of the phase: what matters is which entries are null.
_BULKY = ("masks", "labels", "appearance")


def _people_tables(run: str) -> Iterator[pa.Table]:
    """Fragments of `people/` as they came into the phase, measurements included."""
    photos, people = Run(run).photos, Run(run).people
    decided = {fragment.index: fragment for fragment in photos.fragments()}
    fragments = [found for found in people.fragments() if found.index in decided]
    rows = 0
    for fragment in _spread(fragments):
        before = photos.read(decided[fragment.index], ["source_key", "verdict", "decisions"])
        table = read_table(people.path(fragment))
        if before["source_key"] != table["source_key"]:
            continue
        for name in ("verdict", "decisions"):
            table = table.set_column(table.column_names.index(name), name, before[name])
        for name in _BULKY:
            table = table.set_column(table.column_names.index(name), name, _without_bytes(table[name]))
        dropped = ["regions", "metadata", "caption", "person_ids", "person_verdicts", "person_decisions"]
        table = table.drop_columns([name for name in dropped if name in table.column_names])
        table = table.filter(pc.equal(table["verdict"], KEPT))
        rows += table.num_rows
        yield table
        if rows >= MOST_PHOTOS:
            return


def _spread(fragments: list[Fragment]) -> list[Fragment]:
    """All fragments, in an order whose every start is spread over the run."""
    return sorted(fragments, key=lambda fragment: int(f"{fragment.index:032b}"[::-1], 2))


def _without_bytes(column: pa.ChunkedArray) -> pa.Array:
    """The lists with every value empty; null where it was null."""
    lists = list_array(column)
    empty = pc.if_else(lists.values.is_valid(), b"", pa.scalar(None, pa.binary()))
    return pa.ListArray.from_arrays(lists.offsets, empty, mask=lists.is_null())


def _stages(pipeline: PipelineSettings) -> Sequence[Stage]:
    """The chain of the phase, to decide and never to measure: its weights are named, not opened."""
    models = {name: Model(name, "", "", card.licence) for name, card in pipeline.models.cards.items()}
    chain = ChainContext(Pixels(pipeline.source), CallCounter(None), pipeline.people.measure, models)
    return people_stages(pipeline.people, chain)


def _photos_not_measured(table: pa.Table) -> int:
    """Photos that an earlier rule kept from a model that it is now needed of: nobody on them is known."""
    decisions = list_array(table["decisions"])
    last = decisions.flatten().take(pc.subtract(decisions.offsets[1:], 1))
    return int(pc.sum(pc.equal(last.field("reason"), NOT_MEASURED)).as_py() or 0)


def _main_people(truth: Truth, table: pa.Table) -> int:
    return sum(
        person["main"]
        for photo_id in table["photo_id"].to_pylist()
        for person in truth.people.get(photo_id, [])
    )


def _main_kept(truth: Truth, table: pa.Table) -> int:
    """Kept people that are a main person of the truth, by the boxes that fit best."""
    right = 0
    for row in table.select(["photo_id", "boxes", "person_verdicts"]).to_pylist():
        there = truth.people.get(row["photo_id"], [])
        boxes = [
            box
            for box, verdict in zip(row["boxes"] or [], row["person_verdicts"], strict=False)
            if verdict == KEPT
        ]
        true = np.array([person["box"] for person in there]).reshape(-1, 4)
        for match in match_boxes(np.array(boxes).reshape(-1, 4), true):
            right += match is not None and bool(there[match]["main"])
    return right
