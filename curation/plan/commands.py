"""`persona plan` on the command line, and a plan as a table for people."""

import argparse
import json
import math
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
    plan.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="of this machine: the money comes first",
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
    from curation.run_folder import run_at

    folder = absolute_path(options.out or os.path.join("runs", f"{options.pipeline}-plan"))
    if options.photos < 2:
        raise ConfigError("--photos: must be 2 or more")
    if options.price_per_hour is not None and not 0 <= options.price_per_hour < math.inf:
        raise ConfigError("--price-per-hour: must be a price of 0 or more")
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
        return write_plan(folder, summary, job.pipeline, engine, table, options.seed, options.price_per_hour)
    finally:
        engine.close()


_COUNTS = (
    ("photos", "photos of the collection"),
    ("people", "people who reach the outfits"),
    ("identities", "identities"),
    ("groups", "groups: one person in one outfit"),
    ("photos_kept", "photos in groups"),
    ("pairs", "pairs of photos in groups"),
    ("judge_calls", "questions to the judge"),
)
_WIDE = 1.0  # bounds that are further apart than the number itself are not worth much


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Money where the price of an hour is known, time, counts, every stage, bytes, other machines."""
    from curation.run_folder import Run

    sample = plan["sample"]
    lines = [
        f"plan of {plan['pipeline']}: {sample['photos']} photos were run in {sample['seconds']:.0f} s",
        *_money(plan),
        f"on this machine {_time(plan['seconds']['total'])}, of these to start "
        f"{sum(plan['seconds']['startup'].values()):.0f} s",
        "",
        "what comes out (90 % bounds)",
        *(_count(plan[key], says) for key, says in _COUNTS),
        "",
        *_times(plan),
        "",
        f"all workers' time: {_time(_hours(plan['core_hours']))} of cores, "
        f"{_time(_hours(plan['gpu_hours']))} of GPUs",
        f"run folder {_size(plan['bytes']['total'])}, of these shards {_size(plan['bytes']['shards'])}",
        f"an object store: {_number(plan['object_store']['puts'])} puts, "
        f"{_number(plan['object_store']['gets'])} gets{_store_price(plan)}",
        *_machines(plan),
    ]
    return [*lines, *_warnings(plan), f"plan: {Run(plan['run']).plan_file}"]


def _money(plan: dict[str, Any]) -> list[str]:
    """What the run costs here; nothing where nobody said what an hour costs."""
    price, at = plan["price"], plan["price_per_hour"]
    if price is None:
        return []
    store = plan["object_store"]["price"]
    lines = [f"costs {_span(price, '')} on this machine, at {at:g} an hour"]
    return lines if store is None else [*lines, f"and an object store {_span(store, plan['currency'])}"]


def _times(plan: dict[str, Any]) -> list[str]:
    rows = [("phase", "stage", "rows", "s a row", "first use s", "of workers", "workers", "clock")]
    for step in plan["steps"]:
        for place, stage in enumerate(step["stages"]):
            shared = (str(step["workers"]), _clock(step["wall_s"]["expected"])) if place == 0 else ("", "")
            rows.append(
                (
                    step["phase"],
                    stage["stage"],
                    _number(stage["rows"]),
                    f"{stage['seconds_per_row']:.4f}",
                    f"{stage['first_use_s']:.1f}",
                    _clock(stage["worker_hours"]["expected"] * 3600),
                    *shared,
                )
            )
    widths = [max(len(row[i]) for row in rows) for i in range(8)]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _machines(plan: dict[str, Any]) -> list[str]:
    lines = []
    for machine in plan["machines"]:
        if machine["hours"] is None:
            hours = f"unknown: the table lacks {', '.join(machine['missing'])}"
        else:
            hours = _time(_hours(machine["hours"]))
            price = machine["price"]
            hours += "" if price is None else f", {_span(price, plan['currency'])}"
        lines.append(f"on {machine['name']}: {hours}")
    return lines


def _warnings(plan: dict[str, Any]) -> list[str]:
    wide = [
        says
        for key, says in _COUNTS
        if plan[key]["high"] - plan[key]["low"] > _WIDE * max(plan[key]["expected"], 1)
    ]
    if not wide:
        return []
    return [f"the sample says little about: {', '.join(wide)}; a larger --photos says more"]


def _store_price(plan: dict[str, Any]) -> str:
    price = plan["object_store"]["price"]
    return "" if price is None else f", {_span(price, plan['currency'])} with a month of storage"


def _count(found: dict[str, float], says: str) -> str:
    return f"  {found['expected']:>12,.0f}  {found['low']:,.0f} to {found['high']:,.0f}  {says}"


def _span(found: dict[str, float], unit: str) -> str:
    text = f"{found['expected']:.3g} ({found['low']:.3g} to {found['high']:.3g})"
    return f"{text} {unit}".strip()


def _number(found: dict[str, float]) -> str:
    return f"{found['expected']:,.0f}"


_UNITS = (("h", 3600), ("min", 60), ("s", 1))


def _unit(seconds: float) -> tuple[str, int]:
    """Hours from two of them on, minutes from two of them on."""
    return next((unit for unit in _UNITS if seconds >= 2 * unit[1]), _UNITS[-1])


def _clock(seconds: float) -> str:
    name, length = _unit(seconds)
    return f"{seconds / length:.1f} {name}"


def _time(seconds: dict[str, float]) -> str:
    """With its bounds, in one unit."""
    name, length = _unit(seconds["expected"])
    low, middle, high = (f"{seconds[key] / length:.3g}" for key in ("low", "expected", "high"))
    return f"{middle} {name}" if low == high else f"{middle} ({low} to {high}) {name}"


def _hours(found: dict[str, float]) -> dict[str, float]:
    """Hours as seconds."""
    return {key: 3600 * value for key, value in found.items()}


def _size(found: dict[str, float]) -> str:
    for unit, divisor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if found["expected"] >= divisor:
            return f"{found['expected'] / divisor:.1f} {unit}"
    return f"{found['expected']:,.0f} bytes"
