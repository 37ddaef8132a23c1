"""Runs a pipeline: the six phases in their order, each from committed files to committed files."""

import time
import traceback
from collections import Counter
from contextlib import suppress
from typing import Any

from curation.captions.phase import run_captions
from curation.engine import Engine, Job
from curation.errors import PersonaError, one_line
from curation.funnel import place_of, setting_behind
from curation.identities.phase import run_identities
from curation.ledger import plural
from curation.outfits.phase import run_outfits
from curation.packing.phase import run_shards
from curation.people.phase import run_people
from curation.photos.heeded import obeyed_tombstones
from curation.photos.phase import run_photos
from curation.photos.sample import Sample
from curation.progress import watchers_of
from curation.run_folder import PHASES, Run, code_version, funnel_ends
from curation.step import Context
from curation.storage import write_bytes
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


def nothing_left(run: str, stages: list[dict[str, Any]]) -> str | None:
    """One line about the first stage that kept nothing of what came in, or None where each kept something.

    Most often a setting is the cause, or a column that has another name than one thinks. The run is whole and
    its ledger right, but nobody wants an empty dataset for a success.

    stages  as `summary.json` has them, in the order of the funnel
    """
    for entry in stages:
        if entry["in"] and not entry["kept"] and entry["rejected"]:
            break
    else:
        return None
    stage, total, unit = entry["stage"], entry["in"], entry["unit"]
    reason, number = max(entry["reasons"].items(), key=lambda item: item[1])
    setting = setting_behind(stage, reason)
    detail = _commonest_detail(run, stage, reason) if entry["phase"] == "photos" else ""
    cause = f"{number} by {reason}" + (f" ({detail})" if detail else "")
    where = f"; the setting is {setting}" if setting else ""
    return (
        f"{run}: stage {stage} ruled out all {total} {plural(unit)}, {cause}{where}; "
        "if nothing is what you expect, --allow-empty makes it a success"
    )


def _commonest_detail(run: str, stage: str, reason: str) -> str:
    """What was said most often of photos with a reason, in the first fragment that has it."""
    for table in Run(run).photos.tables(["decisions"]):
        rows = table["decisions"].to_pylist()
        ruled = (decision for decisions in rows for decision in decisions)
        details = Counter(d["detail"] for d in ruled if (d["stage"], d["reason"]) == (stage, reason))
        if details:
            return str(details.most_common(1)[0][0])
    return ""
