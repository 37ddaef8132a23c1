"""The phase `people`: all its stages fused over a fragment; each photo is decoded once.

Tables of the run: `people_photos` (one row a photo) and `people` (one row a person), a fragment of both
committed as one; and what each model measured, by its own hash.
"""

import pyarrow as pa

from curation.declared import counted
from curation.engine import Job, Task, Work
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.meters import CallCounter
from curation.models import used_models
from curation.people.chain import ChainContext, ChainStage
from curation.people.stages import STAGES, PeopleChain
from curation.photos.decoder_process import decoder_of
from curation.photos.measured_on import PERSON, PHOTO, person_name, photo_name
from curation.photos.pixels import Pixels
from curation.run_folder import Run
from curation.stage import FragmentRun, Measurements
from curation.step import Context, Made, run_step, work_of
from curation.storage import read_table

VERSION = 2


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
    context = ChainContext(pixels, calls, job.pipeline.people.measure, job.models)
    chain = PeopleChain.of(job.pipeline.people, context)
    measurements = Measurements(Run(job.run).measured("people"), chain.stages)
    slice_rows = job.pipeline.people.slice_rows

    def transform(task: Task) -> Made:
        table = read_table(task.source)
        fragment = FragmentRun(measurements, table["source_key"].to_pylist(), chain.clock)

        def ruled(part: pa.Table, measures: bool) -> tuple[pa.Table, pa.Table]:
            return chain(part, lambda stages, rows: fragment.run(stages, rows, _names(rows), measures))

        made = [ruled(table, measures=False)]
        if fragment.lacks:
            chain.clock.take()  # that ruling does not stand
            made = []
            for start in range(0, table.num_rows, slice_rows):
                made.append(ruled(table.slice(start, slice_rows), measures=True))
                pixels.close()
            fragment.save()
        photos, people = (pa.concat_tables(tables).combine_chunks() for tables in zip(*made, strict=True))
        decisions = {"photo": photos["decisions"].to_pylist(), "person": people["decisions"].to_pylist()}
        return Made(people, counted(STAGES, decisions), photos, photos.num_rows)

    return work_of(transform, calls, chain.clock)


def _names(rows: pa.Table) -> list[str]:
    """What photos, or people, are measured on."""
    is_people = "person_id" in rows.column_names
    named = (rows.select([*PHOTO, *PERSON]) if is_people else rows.select(PHOTO)).to_pylist()
    return [person_name(row) if is_people else photo_name(row) for row in named]
