"""A step: every fragment of one table becomes a fragment of another, each of them once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from curation.engine import Answer, Engine, Job, Opener, Task, Work
from curation.errors import PersonaError
from curation.fragments import Fragment, about, commit
from curation.ledger import FAILED, Counts, plural
from curation.meters import TRAFFIC, CallCounter, StageClock
from curation.run_folder import Run
from curation.run_tables import PhaseTable
from curation.settings.base import Resources


class Progress(Protocol):
    """Told what a run does; shows it to a person or to nobody."""

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        """A step begins; `done` of `total` fragments are committed already, `workers` do the others."""
        ...

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        """A fragment was committed; `counts` are those of the whole step so far.

        `work` is what its worker said of it: seconds, stages, calls, bytes, and `vlm` (`Traffic.take`).
        """
        ...

    def end(self) -> None:
        """The step is done."""
        ...

    def say(self, line: str) -> None:
        """Something that a person who waits should know."""
        ...


@dataclass
class Context:
    """What the steps of one run share, and what they found out."""

    job: Job
    engine: Engine
    progress: Progress
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    startup_s: dict[str, float] = field(default_factory=dict)
    """What was waited for before work could begin, as a server of the run's own."""

    @property
    def run(self) -> Run:
        """The folder of the run."""
        return Run(self.job.run)


@dataclass(frozen=True)
class Made:
    """What became of a task: its rows, what was ruled, and the rows of the table beside, where there is one.

    rows  how many came in; None: as many as `table` has
    """

    table: pa.Table
    counts: Counts
    beside: pa.Table | None = None
    rows: int | None = None


def work_of(
    transform: Callable[[Task], Made],
    calls: CallCounter,
    clock: StageClock | None = None,
) -> Work:
    """Wraps a transform of one task: times it, counts its calls, commits its rows.

    `clock` is what the transform's stages were timed with, where it has several.
    """
    clock = clock or StageClock()

    def work(task: Task) -> Answer:
        began, cpu = time.monotonic(), time.process_time()
        before = dict(calls.items)
        made = transform(task)
        answer = {
            "rows": made.table.num_rows if made.rows is None else made.rows,
            "counts": made.counts.to_json(),
            "calls": {k: v - before.get(k, 0) for k, v in calls.items.items() if v > before.get(k, 0)},
            "seconds": round(time.monotonic() - began, 4),
            "cpu_seconds": round(time.process_time() - cpu, 4),
            "stages": clock.take(),
        }
        asked = TRAFFIC.take()
        if asked:
            answer["vlm"] = asked
        # The table beside first: the presence of the other commits both.
        size = 0 if made.beside is None else commit(task.beside, made.beside, answer)
        return {**answer, "bytes": size + commit(task.target, made.table, answer)}

    return work


def run_step(
    context: Context,
    phase: str,
    target: PhaseTable,
    sources: list[tuple[str, Fragment, dict[str, Any]]],
    opener: Opener,
    resources: Resources,
) -> list[Fragment]:
    """Commits one fragment of `target` for each of `sources` (input path, fragment to make, detail).

    Those already committed are counted and not repeated. Stops above the allowed share of failed
    rows. Returns the fragments of the table.
    """
    expected = [fragment for _, fragment, _ in sources]
    committed = target.keep_only(expected)
    counts = Counts()
    rows = 0
    for fragment in sorted(committed, key=lambda done: done.index):
        kept = about(target.path(fragment))
        counts.add(kept["counts"])
        rows += kept["rows"]
    tasks = [
        Task(
            fragment.index,
            path,
            target.path(fragment),
            detail,
            "" if target.beside is None else target.beside.path(fragment),
        )
        for path, fragment, detail in sources
        if fragment not in committed
    ]
    began = time.monotonic()
    fresh_rows, cpu = 0, 0.0
    workers = context.engine.workers(resources, len(tasks))
    context.progress.begin(phase, len(expected), len(committed), counts, workers)
    for answer in context.engine.map(opener, context.job, tasks, resources):
        counts.add(answer["counts"])
        fresh_rows += answer["rows"]
        cpu += answer["cpu_seconds"]
        for stage, number in answer["calls"].items():
            context.calls[stage] = context.calls.get(stage, 0) + number
        context.progress.advance(answer["rows"], counts, answer)
        _stop_above_failure_rate(context, phase, counts)
    context.progress.end()
    _stop_above_failure_rate(context, phase, counts, at_end=True)
    context.counts[target.name] = counts.to_json()
    seconds = time.monotonic() - began
    context.rates[target.name] = {
        "rows": rows + fresh_rows,
        "rows_this_time": fresh_rows,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "rows_per_second": round(fresh_rows / seconds, 3) if fresh_rows else 0.0,
        "workers": workers,
    }
    return expected


def _stop_above_failure_rate(context: Context, phase: str, counts: Counts, at_end: bool = False) -> None:
    """Raises above the allowed share; at the end also where every row failed, however few."""
    limits = context.job.pipeline.engine
    for stage, counter in counts.stages.items():
        bad, total = counter[FAILED], counter["in"]
        too_many = bad >= limits.min_failed_rows and bad > limits.max_failed_share * total
        if too_many or (at_end and bad == total > 1 and limits.max_failed_share < 1):
            reasons = ", ".join(
                f"{number} {name.removeprefix('reason:')}"
                for name, number in counter.most_common()
                if name.startswith("reason:")
            )
            raise PersonaError(
                f"{phase}: stage {stage}: {bad} of {total} {plural(counts.units[stage])} failed "
                f"({bad / total:.1%}, engine.max_failed_share is {limits.max_failed_share:.1%}): "
                f"{reasons}; list them with `persona why {context.job.run} --failed`, "
                "take them up with `persona retry`"
            )
