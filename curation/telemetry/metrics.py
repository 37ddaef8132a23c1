"""The metrics of a run for Prometheus: at a port of the command's machine, or in a file.

Rows, reasons and fragments are those of the step, with what earlier starts committed; seconds, calls, bytes
and requests are those of this start. Workers tell of themselves with each fragment that they commit, so what
they do inside one shows when it is done.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from curation.errors import ConfigError
from curation.ledger import FAILED, KEPT, REJECTED, Counts
from curation.run_folder import code_version
from curation.settings.pipeline import TelemetrySettings

STATES = ("running", "finished", "stopped")
_FILE_EVERY_S = 5.0


class Metrics(Collector):
    """A watcher that Prometheus can read. Raises ConfigError where the port is taken."""

    def __init__(self, run: str, pipeline: str, settings: TelemetrySettings) -> None:
        self._about = {"run": run, "pipeline": pipeline, "version": code_version()}
        self._lock = threading.Lock()
        self._state = "running"
        self._step = ""
        self._changed_at = time.time()
        self._counts: dict[str, Counts] = {}
        self._fragments: dict[str, tuple[int, int]] = {}
        self._workers: dict[str, int] = {}
        self._sums: Counter[tuple[str, str]] = Counter()  # (metric, label) -> value
        self._in_flight = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._file, self._file_at = settings.metrics_file, 0.0
        self._server: Any = None
        self.port: int | None = None
        if settings.metrics_port is not None:
            self._server = self._serve(settings)

    def _serve(self, settings: TelemetrySettings) -> Any:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        try:
            server, _ = start_http_server(settings.metrics_port or 0, settings.metrics_host, self._registry)
        except OSError as error:
            raise ConfigError(
                f"telemetry.metrics_port: cannot open {where}: {error.strerror or error}"
            ) from None
        self.port = int(server.server_address[1])
        return server

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        """A step begins."""
        with self._lock:
            self._step = phase
            self._fragments[phase] = (done, total)
            self._workers[phase] = workers
            self._counts[phase] = counts
            self._changed_at = time.time()
        self._write()

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        """A fragment was committed."""
        with self._lock:
            done, total = self._fragments[self._step]
            self._fragments[self._step] = (done + 1, total)
            self._counts[self._step] = counts
            self._changed_at = time.time()
            if work is not None:
                self._add(work)
        self._write()

    def end(self) -> None:
        """The step is done."""
        with self._lock:
            self._workers[self._step] = 0
        self._write(force=True)

    def say(self, line: str) -> None:
        """Nothing that is counted."""

    def finish(self, state: str, message: str = "") -> None:
        """The run ended; the port is closed, the file stays."""
        with self._lock:
            self._state = state
            self._changed_at = time.time()
        self._write(force=True)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def collect(self) -> Iterator[Metric]:
        """All families, with or without samples: their names do not depend on how far the run is."""
        with self._lock:
            at_work = self._state == "running"
            states = {state: float(state == self._state) for state in STATES}
            active = {step: float(at_work and step == self._step) for step in self._fragments}
            done = {step: float(done) for step, (done, _) in self._fragments.items()}
            waiting = {step: float(total - done) for step, (done, total) in self._fragments.items()}
            yield InfoMetricFamily("persona_run", "The run that is told of", self._about)
            yield _gauge("persona_run_state", "1 for the run's state", "state", states)
            yield _gauge("persona_step_active", "1 for the step that runs", "step", active)
            yield _gauge("persona_fragments_done", "Committed fragments of a step", "step", done)
            yield _gauge("persona_fragments_waiting", "Fragments of a step to come", "step", waiting)
            yield _gauge("persona_workers", "Workers of a step", "step", self._workers)
            yield from self._rows()
            for name, says, label in _SUMS:
                sums = {of: value for (metric, of), value in self._sums.items() if metric == name}
                yield _counter(name, says, label, sums)
            yield _number(
                "persona_last_progress_timestamp_seconds", "When something was committed", self._changed_at
            )
            yield _number(
                "persona_vlm_in_flight",
                "Most requests that a worker had in flight in its last fragment",
                self._in_flight,
            )

    def _rows(self) -> Iterator[Metric]:
        rows = CounterMetricFamily("persona_rows", "Decided rows", labels=["stage", "unit", "verdict"])
        reasons = CounterMetricFamily("persona_reasons", "Rows ruled out", labels=["stage", "reason"])
        for counts in self._counts.values():
            for stage, counter in counts.stages.items():
                unit = counts.units[stage]
                for verdict in (KEPT, REJECTED, FAILED):
                    rows.add_metric([stage, unit, verdict], counter[verdict])
                for name, number in counter.items():
                    if name.startswith("reason:"):
                        reasons.add_metric([stage, name.removeprefix("reason:")], number)
        yield rows
        yield reasons

    def _add(self, work: dict[str, Any]) -> None:
        sums = self._sums
        for stage, times in work.get("stages", {}).items():
            sums["persona_stage_seconds", stage] += times["seconds"]
            sums["persona_stage_rows", stage] += times["rows"]
        for stage, calls in work.get("calls", {}).items():
            sums["persona_model_calls", stage] += calls
        sums["persona_worker_seconds", self._step] += work.get("seconds", 0.0)
        sums["persona_worker_cpu_seconds", self._step] += work.get("cpu_seconds", 0.0)
        sums["persona_written_bytes", self._step] += work.get("bytes", 0)
        asked = work.get("vlm")
        if asked:
            for outcome, number in asked["outcomes"].items():
                sums["persona_vlm_requests", outcome] += number
            sums["persona_vlm_retries", self._step] += asked["retries"]
            sums["persona_vlm_request_seconds", self._step] += asked["seconds"]
            self._in_flight = asked["most_in_flight"]

    def _write(self, force: bool = False) -> None:
        if self._file is None or (not force and time.monotonic() - self._file_at < _FILE_EVERY_S):
            return
        self._file_at = time.monotonic()
        try:
            write_to_textfile(self._file, self._registry)
        except OSError:  # a full disk stops the run where results are written, not here
            return


_SUMS = (
    ("persona_stage_seconds", "Seconds of workers in a stage", "stage"),
    ("persona_stage_rows", "Rows that a stage measured, or ruled on where it measures nothing", "stage"),
    ("persona_model_calls", "Items that a model was asked about", "stage"),
    ("persona_worker_seconds", "Seconds of workers on fragments", "step"),
    ("persona_worker_cpu_seconds", "CPU seconds of workers on fragments", "step"),
    ("persona_written_bytes", "Bytes of committed fragments", "step"),
    ("persona_vlm_requests", "Requests to a vision-language model's server by their end", "outcome"),
    ("persona_vlm_retries", "Requests that were sent again", "step"),
    ("persona_vlm_request_seconds", "Seconds of requests, those at the same time added", "step"),
)


def _number(name: str, says: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, says)
    family.add_metric([], value)
    return family


def _gauge(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family


def _counter(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, says, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family
