"""How long each stage works on how many rows. Its first use in a process, which loads a model, is apart.

What a stage needs for one row is then known without what it needs once: `persona plan` multiplies the one
by the rows of a collection and the other by its workers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


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
