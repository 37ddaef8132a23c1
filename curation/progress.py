"""Shows a run: bars on a terminal, lines off one, status.json, and whoever else is told (metrics, spans).

With `log_format: json` every line is one object: time, level, event, run, phase (the step), stage (the last
that decided), and what the event is about.
"""

import json
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from curation.engine import Job
from curation.ledger import FAILED, KEPT, REJECTED, Counts
from curation.run_folder import HEARTBEAT_S, Run, process_mark
from curation.settings.pipeline import TelemetrySettings
from curation.step import Progress

_STATUS_EVERY_S = 2.0


class RunProgress:
    """One row a step: fragments, rows kept / rejected / failed by its last stage, rate, time left."""

    def __init__(self, run: str, quiet: bool = False, settings: TelemetrySettings | None = None) -> None:
        settings = settings or TelemetrySettings()
        self._run = run
        self._quiet = quiet
        self._json = settings.log_format == "json"
        self._every_s = settings.log_every_s
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._bar: Any = None
        self._phase = ""
        self._in_step = False
        self._total = self._done = self._fresh = 0
        self._rows = 0
        self._began = self._status_at = self._line_at = 0.0
        self._counts = Counts()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        if not quiet and not self._json and sys.stderr.isatty():
            self._bars = Bars(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[said]}"),
                console=self._console,
            )
            self._bars.start()

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        """A step begins with `done` of `total` fragments committed."""
        again = phase == self._phase and self._fresh == 0  # a step that stopped to wait for its server
        self._phase, self._total, self._done, self._fresh, self._rows = phase, total, done, 0, 0
        self._began = self._line_at = time.monotonic()
        self._in_step = True
        self._counts = counts
        if self._bars is not None and again:
            self._bars.update(self._bar, completed=done)
        elif self._bars is not None:
            self._bar = self._bars.add_task(phase, total=total, completed=done, said="")
        self._status("running", force=True)
        self._log("step_begins", fragments=total, fragments_done=done, workers=workers)

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        """One more fragment is committed."""
        self._done += 1
        self._fresh += 1
        self._rows += rows
        self._counts = counts
        if self._bars is not None:
            self._bars.update(self._bar, completed=self._done, said=self._said())
        elif time.monotonic() - self._line_at >= self._every_s:
            self._line_at = time.monotonic()
            self._print_line("step_goes_on")
        self._status("running")

    def end(self) -> None:
        """The step is done."""
        if self._bars is not None:
            self._bars.update(self._bar, said=self._said())
        else:
            self._print_line("step_ends")
        self._in_step = False

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._log("said", message=line)
        if not self._quiet and not self._json:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def finish(self, state: str, message: str = "") -> None:
        """The run ended: finished, or stopped with a message."""
        self._ended.set()
        if self._bars is not None:
            self._bars.stop()
        self._status(state, force=True, message=message)
        bad = state != "finished"
        self._log("run_stopped" if bad else "run_finished", "error" if bad else "info", message=message)

    def _beat(self) -> None:
        """Signs of life while a fragment or a global step takes long."""
        while not self._ended.wait(HEARTBEAT_S):
            if self._phase:
                self._status("running", force=True)

    def _rate(self) -> float:
        return self._rows / max(time.monotonic() - self._began, 1e-6)

    def _seconds_left(self) -> float | None:
        if self._fresh == 0:
            return None
        return (time.monotonic() - self._began) / self._fresh * (self._total - self._done)

    def _said(self) -> str:
        parts = []
        stages = self._counts.stages
        if stages:
            stage = list(stages)[-1]
            counter = stages[stage]
            parts.append(
                f"{stage}: {counter[KEPT]} kept {counter[REJECTED]} rejected {counter[FAILED]} failed"
            )
        if self._fresh:
            parts.append(f"{self._rate():.1f} rows/s")
            left = self._seconds_left()
            if left and self._done < self._total:
                parts.append(f"{left:.0f} s left")
        return " · ".join(parts)

    def _print_line(self, event: str) -> None:
        left = self._seconds_left()
        self._log(
            event,
            fragments=self._total,
            fragments_done=self._done,
            rows_per_second=round(self._rate(), 3) if self._fresh else None,
            seconds_left=None if left is None else round(left, 1),
            counts=self._counts.to_json(),
        )
        if self._quiet or self._json:
            return
        self._console.print(
            f"{self._phase}: {self._done}/{self._total} fragments  {self._said()}",
            highlight=False,
            soft_wrap=True,
        )

    def _log(self, event: str, level: str = "info", **about: Any) -> None:
        """One object on stderr, where the settings want JSON."""
        if self._quiet or not self._json:
            return
        stages = list(self._counts.stages)
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            "run": self._run,
            "phase": self._phase if self._in_step else None,
            "stage": stages[-1] if stages and self._in_step else None,
            **about,
        }
        print(json.dumps(record, ensure_ascii=False), file=sys.stderr, flush=True)

    def _status(self, state: str, force: bool = False, message: str = "") -> None:
        now = time.monotonic()
        if not force and now - self._status_at < _STATUS_EVERY_S:
            return
        self._status_at = now
        record = {
            "state": state,
            "message": message,
            "phase": self._phase,
            "fragments_done": self._done,
            "fragments": self._total,
            "rows_per_second": round(self._rate(), 2) if self._fresh else None,
            "seconds_left": self._seconds_left(),
            "counts": self._counts.to_json(),
            **process_mark(),
        }
        try:
            Run(self._run).status = record
        except OSError:  # a full disk stops the run where results are written, not here
            return


class Watcher(Progress, Protocol):
    """Is told of the steps of a run, and of its end."""

    def finish(self, state: str, message: str = "") -> None:
        """The run ended: finished, or stopped with a message."""
        ...


class Watchers:
    """Tells all of them, in order."""

    def __init__(self, watchers: list[Watcher]) -> None:
        self._watchers = watchers

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        """A step begins."""
        for watcher in self._watchers:
            watcher.begin(phase, total, done, counts, workers)

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        """A fragment was committed."""
        for watcher in self._watchers:
            watcher.advance(rows, counts, work)

    def end(self) -> None:
        """The step is done."""
        for watcher in self._watchers:
            watcher.end()

    def say(self, line: str) -> None:
        """Something that a person who waits should know."""
        for watcher in self._watchers:
            watcher.say(line)

    def finish(self, state: str, message: str = "") -> None:
        """The run ended."""
        for watcher in self._watchers:
            watcher.finish(state, message)


def watchers_of(job: Job, name: str, quiet: bool) -> Watchers:
    """As the settings and the environment want them. Raises ConfigError where a port cannot be opened."""
    settings = job.pipeline.telemetry
    watchers: list[Watcher] = [RunProgress(job.run, quiet, settings)]
    if settings.metrics_port is not None or settings.metrics_file is not None:
        from curation.telemetry.metrics import Metrics

        metrics = Metrics(job.run, name, settings)
        if metrics.port is not None:
            watchers[0].say(f"metrics at http://{settings.metrics_host}:{metrics.port}/metrics")
        watchers.append(metrics)
    from curation.telemetry.spans import spans_of

    spans = spans_of(job.run, name, watchers[0].say)
    return Watchers(watchers if spans is None else [*watchers, spans])
