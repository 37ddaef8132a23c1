"""Makes a plan of a sample's run: counts, hours, bytes, prices, each with its bounds; as one JSON object."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from curation.captions.phase import Captions
from curation.captions.select import Select
from curation.engine import Engine
from curation.outfits.phase import Outfit, Outfits
from curation.packing.plan import Pack
from curation.photos.sample import Sampled
from curation.plan.counts import DRAWS, Counts, Expected, expect_counts
from curation.plan.machines import MachineTable, plan_machine
from curation.plan.sample_run import VERDICTS, SampleRun, read_sample_run
from curation.plan.step_times import FILES, ExpectedStep, MeasuredStep, expect_step, measured_steps
from curation.plan.storage_budget import expect_bytes, expect_requests, to_price
from curation.run_folder import Run
from curation.settings import PipelineSettings

SCHEMA = 1


def write_plan(
    run: str,
    summary: dict[str, Any],
    pipeline: PipelineSettings,
    engine: Engine,
    table: MachineTable,
    seed: int,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Writes RUN/plan.json of a sample that was run to its end, and returns it.

    price_per_hour  of the whole machine here
    """
    sampled = Sampled(**(Run(run).drawn or {}))
    sample = read_sample_run(run, pipeline.outfits.min_photos)
    counts = expect_counts(sample, sampled.collection, pipeline.outfits, DRAWS, seed)
    measured = measured_steps(run, summary)
    steps = _steps(measured, sample, counts, sampled, pipeline, engine, seed)
    startup_s = sum(summary["startup_s"].values())
    between_s = _between(summary)
    listing_s = summary["rates"]["source"]["seconds"] / len(sampled.counts) * sampled.units
    total_s = startup_s + between_s + listing_s + sum(step.wall_s for step in steps)
    gpu_hours = sum(step.wall_s * step.workers * _resources(pipeline, step).num_gpus for step in steps) / 3600
    core_hours = (
        sum(step.wall_s * step.workers * _resources(pipeline, step).num_cpus for step in steps) / 3600
    )
    in_bytes = expect_bytes(run, sample, counts)
    whole_bytes = sum(in_bytes.values(), start=np.zeros(DRAWS))
    requests = expect_requests(counts, pipeline.people, *_files(sampled, counts, pipeline))
    store_price, lacks = to_price(whole_bytes, requests, table.object_store)
    plan = {
        "schema": SCHEMA,
        "pipeline": summary["pipeline"],
        "run": run,
        "sample": {
            "photos": sampled.photos,
            "seconds": round(startup_s + summary["seconds_this_time"], 1),
            "units": sampled.units,
            "units_listed": len(sampled.counts),
        },
        "photos": Expected.of(sampled.collection).to_json(),
        "people": Expected.of(counts.persons).to_json(),
        **{name: Expected.of(draws).to_json() for name, draws in _named(counts).items()},
        "stages": _stages(summary, counts),
        "steps": [_step_json(step, rates) for step, rates in zip(steps, measured, strict=True)],
        "seconds": {
            "startup": {key: round(value, 1) for key, value in summary["startup_s"].items()},
            "listing": round(listing_s, 1),
            "between_steps": round(between_s, 1),
            "total": Expected.of(total_s).to_json(1),
        },
        "price_per_hour": price_per_hour,
        "price": None if price_per_hour is None else Expected.of(total_s / 3600 * price_per_hour).to_json(4),
        "hours": Expected.of(total_s / 3600).to_json(4),
        "gpu_hours": Expected.of(gpu_hours).to_json(4),
        "core_hours": Expected.of(core_hours).to_json(4),
        "bytes": {
            **{name: Expected.of(draws).to_json() for name, draws in in_bytes.items()},
            "total": Expected.of(whole_bytes).to_json(),
        },
        "object_store": {
            **{name: Expected.of(draws).to_json() for name, draws in requests.items()},
            "price": None if store_price is None else Expected.of(store_price).to_json(2),
            "missing": lacks,
        },
        "currency": table.currency,
        "machines": [
            plan_machine(name, machine, steps, startup_s).to_json()
            for name, machine in table.machines.items()
        ],
    }
    Run(run).plan = plan
    return plan


def _named(counts: Counts) -> dict[str, np.ndarray]:
    return {
        "identities": counts.outfits["identities"],
        "groups": counts.packed["groups"],
        "photos_kept": counts.packed["kept"],
        "pairs": counts.packed["pairs"],
        "judge_calls": counts.outfits["asked"],
    }


def _stages(summary: dict[str, Any], counts: Counts) -> list[dict[str, Any]]:
    """`in` and `kept` of every stage of the funnel, as `persona status` counts them."""
    outfits = counts.outfits
    in_and_kept = {
        Outfits.name: (outfits["identities"], outfits["groups"]),
        Outfit.name: (counts.persons, outfits["kept"]),
        Select.name: (outfits["kept"], counts.packed["kept"]),
        Captions.name: (counts.packed["kept"], counts.packed["kept"]),
        Pack.name: (outfits["groups"], counts.packed["groups"]),
    }
    rows = []
    for entry in summary["stages"]:
        stage = entry["stage"]
        if stage in in_and_kept:
            into, kept = in_and_kept[stage]
        else:
            ways = [counts.ways[stage, v] for v in VERDICTS if (stage, v) in counts.ways]
            into = sum(ways, start=np.zeros(DRAWS))
            kept = counts.ways.get((stage, "kept"), np.zeros(DRAWS))
        named = {"phase": entry["phase"], "stage": stage, "unit": entry["unit"]}
        rows.append({**named, "in": Expected.of(into).to_json(), "kept": Expected.of(kept).to_json()})
    return rows


def _steps(
    measured: Sequence[MeasuredStep],
    sample: SampleRun,
    counts: Counts,
    sampled: Sampled,
    pipeline: PipelineSettings,
    engine: Engine,
    seed: int,
) -> list[ExpectedStep]:
    random = np.random.Generator(np.random.Philox(seed + 1))
    passed = counts.passed / max(int(sample.passed.sum()), 1)
    ones = np.ones(DRAWS)
    photo_fragments = _photo_fragments(sampled, pipeline.engine.fragment_rows)
    by_identity = _cut(float(np.median(counts.outfits["identities"])), pipeline.engine.fragment_rows)
    shards = [1.0] * _shards(counts, pipeline)
    # By phase: the rows of a stage in the collection for those that it had in the sample, and the fragments.
    grows: dict[str, tuple[Callable[[int], np.ndarray], list[float]]] = {
        "photos": (lambda rows: rows * counts.photos / sample.photos * ones, photo_fragments),
        "people": (lambda rows: rows * passed, photo_fragments),
        "identities": (lambda rows: rows * passed, photo_fragments),
        "outfits": (lambda rows: counts.outfits["asked"], by_identity),
        "captions": (lambda rows: counts.packed["kept"], by_identity),
        "shards": (lambda rows: counts.packed["groups"], shards),
    }
    steps = []
    for step in measured:
        grow, fragments = grows[step.phase]
        rows = {rate.stage: grow(rate.rows) for rate in step.stages}
        rows[FILES] = step.rows * counts.photos / sample.photos * ones
        workers = engine.workers(getattr(pipeline, step.phase).resources, len(fragments))
        steps.append(expect_step(step, rows, fragments, max(workers, 1), random))
    return steps


def _photo_fragments(sampled: Sampled, rows: int) -> list[float]:
    """The sizes of all fragments: as the listed units are cut, the others like them."""
    listed = [size for count in sampled.counts for size in _cut(count, rows)]
    times = sampled.units / len(sampled.counts)
    return (listed * int(np.ceil(times)))[: max(round(len(listed) * times), 1)]


def _cut(count: float, rows: int) -> list[float]:
    whole, rest = divmod(count, rows)
    return [float(rows)] * int(whole) + ([float(rest)] if rest else []) or [1.0]


def _shards(counts: Counts, pipeline: PipelineSettings) -> int:
    return max(int(np.ceil(np.median(counts.packed["groups"]) / pipeline.shards.max_groups)), 1)


def _files(sampled: Sampled, counts: Counts, pipeline: PipelineSettings) -> tuple[int, int, int]:
    rows = pipeline.engine.fragment_rows
    later = len(_cut(float(np.median(counts.outfits["identities"])), rows))
    return len(_photo_fragments(sampled, rows)), later, _shards(counts, pipeline)


def _between(summary: dict[str, Any]) -> float:
    """Seconds in which no step and no server was waited for."""
    steps = sum(rates["seconds"] for rates in summary["rates"].values())
    return float(max(summary["seconds_this_time"] - steps - summary["startup_s"].get("vllm", 0.0), 0.0))


def _resources(pipeline: PipelineSettings, step: ExpectedStep) -> Any:
    return getattr(pipeline, step.phase).resources


def _step_json(step: ExpectedStep, measured: MeasuredStep) -> dict[str, Any]:
    rates = {rate.stage: rate for rate in [*measured.stages, measured.overhead]}
    return {
        "phase": step.phase,
        "folder": step.folder,
        "workers": step.workers,
        "start_s": round(step.start_s, 2),
        "wall_s": Expected.of(step.wall_s).to_json(2),
        "stages": [
            {
                "stage": stage,
                "rows": Expected.of(rows).to_json(),
                "seconds_per_row": round(rates[stage].row_s, 6),
                "first_use_s": round(rates[stage].first_s, 2),
                "worker_hours": Expected.of(seconds / 3600).to_json(5),
            }
            for stage, (rows, seconds) in step.stages.items()
        ],
    }
