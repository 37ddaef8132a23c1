"""`persona plan` on the command line."""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

from edges.command_line import add_command

# Checks settings and weights, starts the engine: (run folder, pipeline, options) -> (job, engine).
Start = Callable[[str, Any, argparse.Namespace], tuple[Any, Any]]


def mount(commands: Any, start: Start, engine_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds the command."""
    plan = add_command(
        commands,
        "plan",
        lambda options: _plan(options, start),
        "what a run will keep, take and cost: from a sample that is really run",
        "persona plan real-photos --set source.path=photos --photos 500",
    )
    plan.add_argument("pipeline", help="a name in pipelines.yaml")
    plan.add_argument("--config", default="pipelines.yaml", metavar="FILE")
    plan.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    plan.add_argument("--photos", type=int, default=200, metavar="N", help="drawn (default %(default)s)")
    plan.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    plan.add_argument(
        "--out",
        metavar="DIR",
        help="where the sample is run and the plan written (default runs/PIPELINE-plan)",
    )
    plan.add_argument("--machines", metavar="FILE", help="other hardware and its prices: docs/plan.md")
    plan.add_argument(
        "--compare", metavar="RUN", help="run nothing: the plan that was made beside the run it was made for"
    )
    engine_options(plan)


def _plan(options: argparse.Namespace, start: Start) -> int:
    from curation.absolute import absolute_path
    from curation.errors import ConfigError
    from curation.plan.compare import compare, comparison_lines, read_plan
    from curation.plan.lines import plan_lines
    from curation.run_folder import run_at

    folder = absolute_path(options.out or os.path.join("runs", f"{options.pipeline}-plan"))
    if options.photos < 2:
        raise ConfigError("--photos: must be 2 or more")
    if options.seed < 0:
        raise ConfigError("--seed: must be 0 or more")
    if options.compare:
        found = compare(read_plan(folder), absolute_path(run_at(options.compare)))
        print(json.dumps(found) if options.json else "\n".join(comparison_lines(found)))
        return 0
    plan = _made(options, folder, start)
    print(json.dumps(plan) if options.json else "\n".join(plan_lines(plan)))
    return 0


def _made(options: argparse.Namespace, folder: str, start: Start) -> dict[str, Any]:
    """Runs the sample and writes the plan; an older sample in the folder is removed first."""
    from curation.curate import curate
    from curation.errors import ConfigError
    from curation.photos.sample import Sample
    from curation.pipeline_file import load_pipeline
    from curation.plan.machines import read_table
    from curation.plan.write import write_plan
    from curation.run_folder import Run
    from curation.storage import list_names, remove

    pipeline = load_pipeline(options.config, options.pipeline, options.overrides)
    table = read_table(options.machines)
    if list_names(folder) and not (Run(folder).exists() and Run(folder).is_sample()):
        raise ConfigError(f"--out {folder}: holds something that is no plan; give an empty or new folder")
    job, engine = start(folder, pipeline, options)
    try:
        remove(folder, recursive=True)  # what is remembered takes no time, and time is to be measured
        workers = engine.workers(job.pipeline.people.resources, options.photos)
        sample = Sample(options.photos, options.seed, workers)
        summary = curate(job, options.pipeline, engine, options.quiet, sample)
        return write_plan(folder, summary, job.pipeline, engine, table, options.seed)
    finally:
        engine.close()
