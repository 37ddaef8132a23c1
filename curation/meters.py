"""What a worker notes of its work: the time of stages, the calls of models, the requests to servers.

Each counts in its own process; what was noted goes into the footer of a fragment.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class StageTime:
    """Of one stage: `rows` that it measured, or ruled on where it measures nothing, in `seconds`.

    `first_rows` and `first_seconds` are the part of its first use in a process. The seconds of a ruling on
    rows that were measured before count without rows.
    """

    rows: int = 0
    seconds: float = 0.0
    first_rows: int = 0
    first_seconds: float = 0.0


class StageClock:
    """One for each process and step; `take` hands over what was noted since it was last called."""

    def __init__(self) -> None:
        self._times: dict[str, StageTime] = {}
        self._used: set[str] = set()

    @contextmanager
    def working(self, stage: str, rows: int) -> Iterator[None]:
        """Times what a stage does with so many rows."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        noted = self._times.setdefault(stage, StageTime())
        noted.rows += rows
        noted.seconds += seconds
        if rows and stage not in self._used:
            self._used.add(stage)
            noted.first_rows += rows
            noted.first_seconds += seconds

    def take(self) -> dict[str, dict[str, float]]:
        """{stage: the fields of StageTime}, as JSON."""
        taken = {
            stage: {key: round(value, 6) for key, value in asdict(noted).items()}
            for stage, noted in self._times.items()
        }
        self._times = {}
        return taken


class CallCounter:
    """`asked(stage, ids)` is called by a stage each time it asks its model about some rows."""

    def __init__(self, folder: str | None) -> None:
        self.items: Counter[str] = Counter()
        self._path: Path | None = None
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._path = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.jsonl"

    def asked(self, stage: str, ids: Sequence[str]) -> None:
        """Counts len(ids) items of one stage."""
        self.items[stage] += len(ids)
        if self._path is not None:
            line = json.dumps({"stage": stage, "ids": list(ids)}) + "\n"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


class Traffic:
    """Counts requests; `take` hands over what was counted since it was last called."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._retries = 0
        self._seconds = 0.0
        self._now = self._most = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around one request, from sending it to its response, whatever that is."""
        began = time.monotonic()
        self._now += 1
        self._most = max(self._most, self._now)
        try:
            yield
        finally:
            self._now -= 1
            self._seconds += time.monotonic() - began

    def ended(self, outcome: str) -> None:
        """How a request ended: `ok`, `timeout`, `connection`, `malformed`, `http_429` …"""
        self._outcomes[outcome] += 1

    def again(self) -> None:
        """A request is sent again."""
        self._retries += 1

    def take(self) -> dict[str, Any]:
        """{outcomes, retries, seconds, most_in_flight}; empty where nothing was asked."""
        if not self._outcomes:
            return {}
        taken = {
            "outcomes": dict(self._outcomes),
            "retries": self._retries,
            "seconds": round(self._seconds, 3),
            "most_in_flight": self._most,
        }
        self._outcomes, self._retries, self._seconds, self._most = Counter(), 0, 0.0, self._now
        return taken


TRAFFIC = Traffic()
"""Of this process: a worker asks through one client, and works on one task at a time."""
