"""A run as OpenTelemetry spans: the run, its steps, and in each step the stages that worked in it.

Only where OpenTelemetry is installed and the environment says where spans go (OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT). A span of a stage has the length of its step; how long workers spent in
the stage is its attribute `persona.seconds`, since many of them work at the same time.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from curation.errors import printable
from curation.ledger import FAILED, KEPT, REJECTED, Counts
from curation.run_folder import code_version

_EXPORTER = "opentelemetry.exporter.otlp"  # its logger
_PLACES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def spans_of(run: str, pipeline: str, say: Callable[[str], None]) -> "Spans | None":
    """The watcher, where spans are wanted and can be sent. `say` is told, once, where they do not arrive."""
    if not _set_places():
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    logger = logging.getLogger(_EXPORTER)
    logger.handlers, logger.propagate = [_FirstComplaint(say)], False
    name = os.environ.get("OTEL_SERVICE_NAME", "persona")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider, run, pipeline)


class _FirstComplaint(logging.Handler):
    """The exporter complains of every attempt, for as long as the run takes; a person needs to know once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say: Callable[[str], None] | None = say

    def emit(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        if say is not None:
            said = printable(" ".join(record.getMessage().split()))[:300]
            say(f"spans do not arrive where {' or '.join(_set_places())} says: {said}")


def _set_places() -> list[str]:
    return [name for name in _PLACES if os.environ.get(name)]


class Spans:
    """A watcher. `provider` is an OpenTelemetry TracerProvider; it is shut down at the run's end."""

    def __init__(self, provider: Any, run: str, pipeline: str) -> None:
        from opentelemetry.trace import set_span_in_context

        self._inside = set_span_in_context
        self._provider = provider
        self._tracer = provider.get_tracer("persona", code_version())
        about = {"persona.run": run, "persona.pipeline": pipeline}
        self._run = self._tracer.start_span(f"curate {pipeline}", attributes=about)
        self._step: Any = None
        self._began = 0
        self._counts = Counts()
        self._seconds: Counter[str] = Counter()

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        """A step begins."""
        self._end_step()
        self._began = time.time_ns()
        about = {"persona.fragments": total, "persona.committed_before": done, "persona.workers": workers}
        inside = self._inside(self._run)
        self._step = self._tracer.start_span(phase, inside, attributes=about, start_time=self._began)
        self._counts, self._seconds = counts, Counter()

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        """A fragment was committed."""
        self._counts = counts
        for stage, times in (work or {}).get("stages", {}).items():
            self._seconds[stage] += times["seconds"]

    def end(self) -> None:
        """The step is done."""
        self._end_step()

    def say(self, line: str) -> None:
        """An event of the span that is open."""
        (self._step or self._run).add_event(line)

    def finish(self, state: str, message: str = "") -> None:
        """The run ended; what was not sent yet is sent."""
        from opentelemetry.trace import Status, StatusCode

        self._end_step()
        self._run.set_attribute("persona.state", state)
        if state != "finished":
            self._run.set_status(Status(StatusCode.ERROR, message))
        self._run.end()
        self._provider.shutdown()

    def _end_step(self) -> None:
        if self._step is None:
            return
        now = time.time_ns()
        inside = self._inside(self._step)
        for stage, counter in self._counts.stages.items():
            about: dict[str, Any] = {
                "persona.unit": self._counts.units[stage],
                **{f"persona.{verdict}": counter[verdict] for verdict in (KEPT, REJECTED, FAILED)},
            }
            if stage in self._seconds:
                about["persona.seconds"] = round(self._seconds[stage], 3)
            span = self._tracer.start_span(stage, inside, attributes=about, start_time=self._began)
            span.end(now)
        self._step.end(now)
        self._step = None
