"""Runs a pipeline: the six phases in their order, each from committed files to committed files."""

import time
import traceback
from contextlib import suppress
from typing import Any

from curation.captions.phase import run_captions
from curation.engine import Engine, Job
from curation.errors import PersonaError, one_line
from curation.funnel import place_of
from curation.identities.phase import run_identities
from curation.outfits.phase import run_outfits
from curation.packing.phase import run_shards
from curation.people.phase import run_people
from curation.photos.heeded import obeyed_tombstones
from curation.photos.phase import run_photos
from curation.photos.sample import Sample
from curation.run_folder import PHASES, Run, code_version, funnel_ends
from curation.step import Context
from curation.storage import write_bytes
from curation.telemetry.watchers import watchers_of
from curation.vlm.serving import Servers


def curate(
    job: Job, name: str, engine: Engine, quiet: bool = False, sample: Sample | None = None
) -> dict[str, Any]:
    """Runs the pipeline `name` from wherever its run folder stands. Returns the summary.

    With a `sample`, on that alone: its run folder is no other run's.

    Raises PersonaError with one line when it cannot go on; what was committed stays.
    """
    run = Run(job.run)
    run.write_settings(name, job.pipeline, job.models, sample is not None)
    progress = watchers_of(job, name, quiet)
    context = Context(job, engine, progress)
    servers = Servers(context)
    began = time.monotonic()
    try:
        photos = run_photos(context, sample)
        people = run_people(context, photos)
        identities = run_identities(context, people)
        gathered, outfits = servers.run("outfits", lambda: run_outfits(context, people, identities))
        captions = servers.run("captions", lambda: run_captions(context, gathered, outfits))
        servers.close()
        run_shards(context, gathered, captions, name, place_of)
    except PersonaError as error:
        progress.finish("stopped", str(error))
        raise
    except Exception as error:
        # A fault of a store, a disk or ours: the user gets one line, whoever mends it the whole.
        with suppress(OSError):
            write_bytes(run.traceback, traceback.format_exc().encode("utf-8", "replace"))
        progress.finish("stopped", one_line(error))
        raise PersonaError(f"{one_line(error)} (traceback: {run.traceback})") from error
    except BaseException as error:
        progress.finish("stopped", type(error).__name__)
        raise
    finally:
        servers.close()
    summary = _summary(context, name, time.monotonic() - began)
    run.summary = summary
    progress.finish("finished")
    return summary


def _summary(context: Context, name: str, seconds: float) -> dict[str, Any]:
    stages = []
    for phase, folders in PHASES.items():
        for folder in folders:
            for stage, entry in context.counts[folder].items():
                stages.append({"phase": phase, "stage": stage, **entry})
    dataset = context.run.dataset or {}
    return {
        "pipeline": name,
        "persona": code_version(),
        **funnel_ends(stages),
        "groups": dataset.get("groups", 0),
        "photos": dataset.get("photos", 0),
        "shards": len(dataset.get("shards", [])),
        "bytes": dataset.get("bytes", 0),
        "config": dataset.get("config"),
        "opt_out": context.run.opt_out,
        "forgotten": obeyed_tombstones(context.job.run, context.job.pipeline.photos.screen),
        "stages": stages,
        "model_calls_this_time": context.calls,
        "rates": context.rates,
        "startup_s": {"engine": context.engine.start_s, **context.startup_s},
        "seconds_this_time": round(seconds, 3),
    }
