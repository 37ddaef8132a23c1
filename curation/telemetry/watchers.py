"""Everybody who is told what a run does: the terminal, and whatever the settings ask for besides."""

from typing import Any, Protocol

from curation.engine import Job
from curation.ledger import Counts
from curation.progress import RunProgress
from curation.step import Progress


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
