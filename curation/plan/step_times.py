"""How long a run takes, step by step: what was measured on the sample, and what follows for the collection.

A worker's time on a fragment is what each stage needs for a row times the rows, and the rest (reading and
writing files) by the rows of the fragment. What is needed once stands apart: a worker's first use of a stage,
which loads its model; the start of a step's workers; the start of Ray and of a server. The time on the clock
is that of the workers as they take fragment after fragment. What runs in the command's own process (the
search for copies, the clustering, the index) was in the sample mostly the import of libraries, and stands as
it was; docs/identities.md says how clustering grows.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.funnel import main_stage
from curation.meters import StageTime
from curation.run_folder import PHASES, Run

FILES = "files"  # of a fragment: what no stage accounts for


@dataclass(frozen=True)
class StageRate:
    """Of one stage: seconds of a worker for a row, those of each fragment apart, and once for each worker."""

    stage: str
    rows: int
    row_s: float
    each_row_s: np.ndarray
    first_s: float


@dataclass(frozen=True)
class MeasuredStep:
    """One folder of fragments. `start_s`: from the step's begin to its first worker, as far as it is no work.

    `overhead` is the seconds of a fragment's row that no stage accounts for.
    """

    phase: str
    folder: str
    rows: int
    seconds: float
    workers: int
    start_s: float
    stages: list[StageRate]
    overhead: StageRate


def measured_steps(run: str, summary: dict[str, Any]) -> list[MeasuredStep]:
    """Of a finished run that one command made whole."""
    steps = []
    for phase, folders in PHASES.items():
        for folder in folders:
            fragments = Run(run).table(folder).about()
            rates = summary["rates"][folder]
            steps.append(_measured(phase, folder, fragments, rates))
    return steps


def _measured(
    phase: str, folder: str, fragments: list[dict[str, Any]], rates: dict[str, Any]
) -> MeasuredStep:
    workers = max(int(rates["workers"]), 1)
    busy = makespan([entry["seconds"] for entry in fragments], workers)
    rows = sum(entry["rows"] for entry in fragments)
    names = list(dict.fromkeys(stage for entry in fragments for stage in entry["stages"]))
    if names:
        stages = [_rate(name, [entry["stages"].get(name) for entry in fragments]) for name in names]
        rest = [
            (entry["rows"], max(entry["seconds"] - sum(t["seconds"] for t in entry["stages"].values()), 0.0))
            for entry in fragments
        ]
        overhead = _plain(FILES, rest)
    else:
        name = main_stage(phase)
        stages = [_plain(name, [(_asked(entry, name), entry["seconds"]) for entry in fragments])]
        overhead = _plain(FILES, [])
    start_s = max(rates["seconds"] - busy, 0.0)
    return MeasuredStep(phase, folder, rows, rates["seconds"], workers, start_s, stages, overhead)


def _asked(entry: dict[str, Any], stage: str) -> int:
    """Questions to a model where there were any, else rows."""
    return int(entry["calls"].get(stage) or entry["rows"])


def _rate(stage: str, entries: Sequence[dict[str, Any] | None]) -> StageRate:
    """Warm seconds for a row; of a stage that was only ever used for the first time, those of that."""
    times = [StageTime(**entry) for entry in entries if entry is not None]
    rows = sum(time.rows for time in times)
    warm = [(time.rows - time.first_rows, time.seconds - time.first_seconds) for time in times]
    firsts = [time for time in times if time.first_rows]
    found = _plain(stage, warm)
    if not sum(count for count, _ in warm):
        found = _plain(stage, [(time.rows, time.seconds) for time in times])
        return StageRate(stage, rows, found.row_s, found.each_row_s, 0.0)
    once = sum(max(time.first_seconds - time.first_rows * found.row_s, 0.0) for time in firsts)
    return StageRate(stage, rows, found.row_s, found.each_row_s, once / max(len(firsts), 1))


def _plain(stage: str, entries: Iterable[tuple[int, float]]) -> StageRate:
    some = [(rows, seconds) for rows, seconds in entries if rows]
    rows = sum(count for count, _ in some)
    each = np.array([seconds / count for count, seconds in some])
    row_s = sum(seconds for _, seconds in some) / rows if rows else 0.0
    return StageRate(stage, rows, row_s, each, 0.0)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until all fragments are done, each taken in order by whichever worker is free first."""
    free = [0.0] * max(workers, 1)
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@dataclass(frozen=True)
class ExpectedStep:
    """Draws of the seconds of workers of each stage, and of the time on the clock, for the collection."""

    phase: str
    folder: str
    workers: int
    stages: dict[str, tuple[np.ndarray, np.ndarray]]
    """{stage: (rows, seconds of workers)}."""
    wall_s: np.ndarray
    start_s: float


def expect_step(
    step: MeasuredStep,
    rows: dict[str, np.ndarray],
    fragments: Sequence[float],
    workers: int,
    random: np.random.Generator,
) -> ExpectedStep:
    """`rows`: draws of the rows of each stage; of FILES, those of the fragments.

    `fragments`: their sizes, in any unit; how evenly they fall on `workers` stretches the time on the clock.
    """
    stages, total, once = {}, 0.0 * rows[FILES], 0.0
    for rate in [*step.stages, step.overhead]:
        if not rate.rows and rate is step.overhead:
            continue
        count = rows[FILES] if rate.stage == FILES else rows[rate.stage]
        work = count * _drawn(rate, len(count), random)
        stages[rate.stage] = (count, work + rate.first_s * workers)
        total = total + work
        once += rate.first_s
    stretch = makespan(fragments, workers) / max(sum(fragments), 1e-9)
    return ExpectedStep(
        step.phase, step.folder, workers, stages, step.start_s + once + total * stretch, step.start_s
    )


def _drawn(rate: StageRate, draws: int, random: np.random.Generator) -> np.ndarray:
    """Seconds for a row, as uncertain as the fragments differ."""
    count = len(rate.each_row_s)
    if count < 2 or not rate.row_s:
        return np.full(draws, rate.row_s)
    error = rate.each_row_s.std(ddof=1) / np.sqrt(count)
    return np.asarray(np.maximum(rate.row_s + error * random.standard_normal(draws), rate.row_s / 10))
