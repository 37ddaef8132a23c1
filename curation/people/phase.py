"""The phase `people`: all its stages fused over a fragment; each photo is decoded once.

Tables of the run: `people` (one row a photo), and what each model measured, by its own hash.
"""

import pyarrow as pa

from curation.declared import counted
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.ledger import Counts
from curation.meters import CallCounter, StageClock
from curation.models import used_models
from curation.people.chain import ChainContext, ChainStage
from curation.people.stages import STAGES, people_stages
from curation.photos.decoder_process import decoder_of
from curation.photos.measured_on import PHOTO, photo_name
from curation.photos.pixels import Pixels
from curation.run_folder import Run
from curation.stage import Measurements, run_chain
from curation.step import Context, run_step, work_of
from curation.storage import read_table

VERSION = 1


def run_people(context: Context, photos: list[Fragment]) -> list[Fragment]:
    """Runs the phase; returns the fragments of `people/`."""
    people = context.job.pipeline.people
    weights = {name: model.sha256 for name, model in used_models(people, context.job.models).items()}
    versions = {stage.name: stage.version for stage in STAGES if issubclass(stage, ChainStage)}
    step_hash = fingerprint(["people", VERSION, versions, people.ruling(), weights])
    return run_step(
        context,
        "people",
        context.run.people,
        [(context.run.photos.path(f), f.after(step_hash), {}) for f in photos],
        open_people,
        people.resources,
    )


def open_people(job: Job) -> Work:
    """Work: a fragment of `photos/` becomes one of `people/`."""
    calls = CallCounter(job.calls)
    pixels = Pixels(job.pipeline.source, decoder_of(job.pipeline.photos.decoder))
    chain = ChainContext(pixels, calls, job.pipeline.people.measure, job.models)
    stages = people_stages(job.pipeline.people, chain)
    measurements = Measurements(Run(job.run).measured("people"), stages)
    clock = StageClock()

    def transform(task: Task) -> tuple[pa.Table, Counts]:
        table = read_table(task.source)
        row_ids = [photo_name(row) for row in table.select(PHOTO).to_pylist()]
        slice_rows = job.pipeline.people.slice_rows
        table = run_chain(stages, table, measurements, row_ids, slice_rows, pixels.close, clock)
        people = [person for row in table["person_decisions"].to_pylist() for person in row]
        decisions = {"photo": table["decisions"].to_pylist(), "person": people}
        return table, counted(STAGES, decisions)

    return work_of(transform, calls, clock)
