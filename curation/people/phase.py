"""The phase `people`: all its stages fused over a fragment; each photo is decoded once.

Tables of the run: `people` (one row a photo), and what each model measured, by its own hash.
"""

from typing import Any, ClassVar

import pyarrow as pa

from curation.backends import OnFirstUse
from curation.call_counter import CallCounter
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.ledger import FAILED, KEPT, Counts, Outcome, failed, is_kept, kept, rule_rows
from curation.measured_on import PHOTO, photo_name
from curation.models import Model, Models, used_models
from curation.people.age import Age
from curation.people.appearance import Appearance
from curation.people.detect import Detect
from curation.people.face import FaceStage
from curation.people.full_body import FullBody
from curation.people.lone_faces import DetectWithFaces
from curation.people.nsfw import Nsfw
from curation.people.person_stage import ChainContext
from curation.people.regions import Regions
from curation.people.segment import Segment
from curation.photos.decoder_process import decoder_of
from curation.photos.pixels import Pixels
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.settings.base import Settings
from curation.stage import Measurements, Stage, run_chain
from curation.stage_clock import StageClock
from curation.step import Context, run_step, work_of
from curation.storage import read_table

VERSION = 1


def run_people(context: Context, photos: list[Fragment]) -> list[Fragment]:
    """Runs the phase; returns the fragments of `people/`."""
    people = context.job.pipeline.people
    weights = {name: model.sha256 for name, model in used_models(people, context.job.models).items()}
    versions = {stage.name: stage.version for stage in STAGES}
    step_hash = fingerprint(["people", VERSION, versions, people.ruling(), weights])
    return run_step(
        context,
        "people",
        "people",
        [(context.run.photos.path(f), f.after(step_hash), {}) for f in photos],
        open_people,
        people.resources,
    )


def people_stages(pipeline: PipelineSettings, models: Models, chain: ChainContext) -> list[Stage]:
    """The chain; a model is loaded when it is first asked."""
    people = pipeline.people

    def weights(settings: Settings) -> list[Model]:
        return list(used_models(settings, models).values())

    detect, face, segment, regions = people.detect, people.face, people.segment, people.regions
    detector = OnFirstUse("detector", detect.by, models)
    finder = OnFirstUse("face_finder", face.find, models)
    embedder = OnFirstUse("face_embedder", face.embed, models)
    segmenter = OnFirstUse("segmenter", segment.by, models)
    parser = OnFirstUse("parser", regions.by, models)
    before: list[Stage] = []
    after_face: list[Stage] = []
    if people.nsfw is not None:
        classifier = OnFirstUse("classifier", people.nsfw.by, models)
        before.append(Nsfw(people.nsfw, weights(people.nsfw), classifier, chain))
    if people.age is not None:
        classifier = OnFirstUse("classifier", people.age.by, models)
        after_face.append(Age(people.age, weights(people.age), classifier, chain))
    finding = Detect(detect, weights(detect), detector, chain)
    if people.lone_faces is not None:
        by_face = (face.find, weights(face.find), finder)
        finding = DetectWithFaces(detect, weights(detect), detector, chain, people.lone_faces, by_face)
    return [
        *before,
        finding,
        FaceStage(face, weights(face), finder, embedder, chain),
        *after_face,
        FullBody(people.full_body, chain),
        Segment(segment, weights(segment), segmenter, chain),
        Regions(regions, weights(regions), parser, chain),
        Appearance(people.appearance, [], chain),
        SomeoneLeft(people),
    ]


class SomeoneLeft(Stage):
    """Stage `people`: a photo of which no person is left is rejected; failed where one failed."""

    name: ClassVar[str] = "people"
    unit: ClassVar[str] = "photo"

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every photo still in."""
        outcomes: list[Outcome | None] = []
        columns = table.select(["person_verdicts", "person_decisions"]).to_pylist()
        for row, still_in in zip(columns, is_kept(table), strict=True):
            outcomes.append(_ruling(row) if still_in else None)
        return rule_rows(table, self.stamp, outcomes)


def _ruling(row: dict[str, Any]) -> Outcome:
    verdicts = row["person_verdicts"]
    if KEPT in verdicts:
        return kept()
    last = [decisions[-1] for decisions in row["person_decisions"]]
    if FAILED in verdicts:
        said = {f"{d['stage']}: {d['detail'] or d['reason']}" for d in last if d["verdict"] == FAILED}
        return failed("person_failed", "; ".join(sorted(said))[:300])
    reasons = sorted({decision["reason"] for decision in last})
    return Outcome("rejected", "nobody_left", detail=", ".join(reasons))


STAGES = (Nsfw, Age, Detect, FaceStage, FullBody, Segment, Regions, Appearance, SomeoneLeft)


def open_people(job: Job) -> Work:
    """Work: a fragment of `photos/` becomes one of `people/`."""
    calls = CallCounter(job.calls)
    pixels = Pixels(job.pipeline.source, decoder_of(job.pipeline.photos.decoder))
    chain = ChainContext(pixels, calls, job.pipeline.people.measure)
    stages = people_stages(job.pipeline, job.models, chain)
    measurements = Measurements(Run(job.run).measured("people"), stages)
    clock = StageClock()

    def transform(task: Task) -> tuple[pa.Table, Counts]:
        table = read_table(task.source)
        row_ids = [photo_name(row) for row in table.select(PHOTO).to_pylist()]
        slice_rows = job.pipeline.people.slice_rows
        table = run_chain(stages, table, measurements, row_ids, slice_rows, pixels.close, clock)
        counts = Counts()
        decisions = table["decisions"].to_pylist()
        counts.count("photo", decisions, only="nsfw")
        counts.count("photo", decisions, only="detect")
        people = [person for row in table["person_decisions"].to_pylist() for person in row]
        counts.count("person", people)
        counts.count("photo", decisions, only="people")
        return table, counts

    return work_of(transform, calls, clock)
