"""The phase `outfits`: the judge and a strategy turn each identity's photos into groups.

Tables of the run: `gathered` (people by identity), `outfits` (one row an identity).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.backends import JoinsRun, build_backend
from curation.declared import Declared, Number, Reason, Threshold, counted
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.ledger import FAILED, Outcome, rule_rows
from curation.meters import CallCounter
from curation.models import Model, used_models
from curation.outfits.appearance_judge import similarities
from curation.outfits.clusters import outfit_clusters
from curation.outfits.gather import gather
from curation.outfits.judge import JudgesRegions, PairJudge, PersonRow
from curation.outfits.strategy import Strategy, Verdicts, judge_side_by_side, paper_protocol
from curation.run_folder import Run
from curation.settings.outfits import OutfitsSettings, PaperStrategy
from curation.stage import Stage
from curation.step import Context, Made, run_step, work_of

VERSION = 4
# What the judge was shown, in this order, and what it said.
PAIR = pa.struct(
    [
        ("a", pa.string()),
        ("b", pa.string()),
        ("same", pa.bool_()),
        ("score", pa.float64()),
        ("by_regions", pa.bool_()),
    ]
)


def run_outfits(
    context: Context, people: list[Fragment], identities: list[Fragment]
) -> tuple[str, list[Fragment]]:
    """Runs the phase; returns the folder of the gathered people and the fragments of `outfits/`."""
    pipeline = context.job.pipeline
    name, buckets = gather(context, people, identities)
    weights = {n: m.sha256 for n, m in used_models(pipeline.outfits, context.job.models).items()}
    step_hash = fingerprint(["outfits", VERSION, pipeline.outfits.ruling(), pipeline.seed, weights, name])
    fragments = run_step(
        context,
        "outfits",
        context.run.outfits,
        [(name, Fragment(i, fingerprint([step_hash, i])), {}) for i in range(buckets)],
        open_outfits,
        pipeline.outfits.resources,
    )
    return name, fragments


_TOO_FEW = Threshold(
    "too_few_photos", "outfits.min_photos", "at least", "photos of the person, or of its outfit"
)
_REASONS = (
    Reason("outfit_differs", "the judge calls the first two photos of the person different"),
    Reason("outfit_unknown", "the judge cannot tell: too little of the clothes is seen"),
    Reason("judge_error", "the judge gave no answer; the detail says why", verdict=FAILED),
)


_LIKENESS = Threshold("same", "outfits.judge.cut", "at least", "the judge's p(same outfit)")


class Outfit(Declared):
    """Decisions of Outfits about each photo of an identity."""

    name: ClassVar[str] = "outfit"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = OutfitsSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        *_REASONS,
        Reason("other_outfit", "the judge calls it different from the photos that were kept before it"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (_TOO_FEW,)
    numbers: ClassVar[Mapping[str, Number]] = dict.fromkeys(
        ("", "outfit_differs", "outfit_unknown", "other_outfit"), _LIKENESS.number
    )


class Outfits(Stage):
    """Stage `outfits` rules on identities, `outfit` on each photo of one.

    Reads `identity` and `people` (list of structs with `columns`); fills `person_ids`, `outfits` (a letter,
    or null), `pairs` (what the judge was asked and said).
    """

    name: ClassVar[str] = "outfits"
    unit: ClassVar[str] = "identity"
    settings_type: ClassVar[Any] = OutfitsSettings
    reasons: ClassVar[tuple[Reason, ...]] = _REASONS
    thresholds: ClassVar[tuple[Threshold, ...]] = (_TOO_FEW,)
    numbers: ClassVar[Mapping[str, Number]] = dict.fromkeys(
        ("", "outfit_differs", "outfit_unknown"), _LIKENESS.number
    )
    pairs: ClassVar[Threshold] = _LIKENESS
    """Of the judge's answers, which are about pairs and no check of a row."""

    def __init__(
        self,
        settings: OutfitsSettings,
        judge: PairJudge,
        seed: int,
        calls: CallCounter,
        models: Sequence[Model] = (),
    ) -> None:
        super().__init__(settings, models)
        self._settings = settings
        self._judge = judge
        self._seed = seed
        self._calls = calls
        self._photo_stamp = replace(self.stamp, stage=Outfit.name)
        self.columns = list(dict.fromkeys(["person_id", "appearance", *judge.columns]))

    def decide(self, table: pa.Table) -> pa.Table:
        """Judges all identities side by side: each round asks what every one of them wants next."""
        identities = table["identity"].to_pylist()
        people = table["people"].to_pylist()
        runs = [self._strategy(identity, photos) for identity, photos in zip(identities, people, strict=True)]
        verdicts = judge_side_by_side(runs, people, self._judge)
        self._count(verdicts, people)
        ids = [[person["person_id"] for person in photos] for photos in people]
        pairs = [
            [
                {
                    "a": ids[row][ask.a],
                    "b": ids[row][ask.b],
                    "same": answer.same,
                    "score": answer.score,
                    "by_regions": ask.by_regions,
                }
                for ask, answer in found.asked
            ]
            for row, found in enumerate(verdicts)
        ]
        everyone = pa.table({"person_id": pa.array([name for row in ids for name in row], pa.string())})
        ruled = rule_rows(
            everyone, self._photo_stamp, [photo for found in verdicts for photo in found.photos]
        )
        offsets = pa.array(np.cumsum([0, *map(len, ids)]), pa.int32())
        out = pa.table(
            {
                "identity": table["identity"],
                "person_ids": pa.array(ids, pa.list_(pa.string())),
                "outfits": pa.array([v.outfits for v in verdicts], pa.list_(pa.string())),
                "merged": pa.array(
                    [v.merged or [False] * len(v.photos) for v in verdicts], pa.list_(pa.bool_())
                ),
                "pairs": pa.array(pairs, pa.list_(PAIR)),
                "person_verdicts": pa.ListArray.from_arrays(offsets, _one_chunk(ruled["verdict"])),
                "person_decisions": pa.ListArray.from_arrays(offsets, _one_chunk(ruled["decisions"])),
            }
        )
        persons: list[Outcome | None] = [found.person for found in verdicts]
        return rule_rows(out, self.stamp, persons)

    def _count(self, verdicts: list[Verdicts], people: list[list[PersonRow]]) -> None:
        if self._judge.asks_model:
            for found, photos in zip(verdicts, people, strict=True):
                ids = [photo["person_id"] for photo in photos]
                self._calls.asked(self.name, [f"{ids[ask.a]}|{ids[ask.b]}" for ask, _ in found.asked])

    def _strategy(self, identity: str, photos: list[PersonRow]) -> Strategy:
        settings, least = self._settings.strategy, self._settings.min_photos
        if isinstance(settings, PaperStrategy):
            key = int(fingerprint(["outfits", self._seed, identity]), 16)
            random = np.random.Generator(np.random.Philox(key=key))
            return paper_protocol(len(photos), random, settings, least)
        ids = [photo["person_id"] for photo in photos]
        alike = similarities([photo["appearance"] for photo in photos])
        return outfit_clusters(ids, alike, settings, least, isinstance(self._judge, JudgesRegions))


STAGES: tuple[type[Declared], ...] = (Outfits, Outfit)


def open_outfits(job: Job) -> Work:
    """Work: a bucket of people becomes a fragment of identities with their groups."""
    run, calls = Run(job.run), CallCounter(job.calls)
    settings = job.pipeline.outfits
    judge = build_backend("judge", settings.judge, job.models)
    if isinstance(judge, JoinsRun):
        judge.join_run(job, "outfits", calls)
    weights = list(used_models(settings, job.models).values())
    stage = Outfits(settings, judge, job.pipeline.seed, calls, weights)

    def transform(task: Task) -> Made:
        people = run.gathered.read(task.source, task.index)
        table = stage(by_identity(people, stage.columns))
        photos = [person for row in table["person_decisions"].to_pylist() for person in row]
        decisions = {Outfits.unit: table["decisions"].to_pylist(), Outfit.unit: photos}
        return Made(table, counted(STAGES, decisions))

    return work_of(transform, calls)


def by_identity(people: pa.Table, columns: list[str]) -> pa.Table:
    """One row an identity, with its people as a list of structs; `people` is sorted by identity."""
    identity = people["identity"].combine_chunks()
    values = np.asarray(identity)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    offsets = pa.array([*starts.tolist(), len(values)], pa.int32())
    struct = pa.StructArray.from_arrays([_one_chunk(people[name]) for name in columns], names=columns)
    return pa.table(
        {
            "identity": identity.take(pa.array(starts)),
            "people": pa.ListArray.from_arrays(offsets, struct),
        }
    )


def _one_chunk(column: Any) -> pa.Array:
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
