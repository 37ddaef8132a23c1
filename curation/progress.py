"""Shows a run: bars on a terminal, a line now and then off one; keeps status.json up to date."""

import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from curation.ledger import FAILED, KEPT, REJECTED, Counts
from curation.run_folder import HEARTBEAT_S, whoami, write_json

_STATUS_EVERY_S = 2.0
_LINE_EVERY_S = 15.0


class RunProgress:
    """One row a step: fragments, rows kept / rejected / failed by its last stage, rate, time left."""

    def __init__(self, run: str, quiet: bool = False) -> None:
        self._run = run
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._bar: Any = None
        self._phase = ""
        self._total = self._done = self._fresh = 0
        self._rows = 0
        self._began = self._status_at = self._line_at = 0.0
        self._counts = Counts()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        if not quiet and sys.stderr.isatty():
            self._bars = Bars(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[said]}"),
                console=self._console,
            )
            self._bars.start()

    def begin(self, phase: str, total: int, done: int, counts: Counts) -> None:
        """A step begins with `done` of `total` fragments committed."""
        again = phase == self._phase and self._fresh == 0  # a step that stopped to wait for its server
        self._phase, self._total, self._done, self._fresh, self._rows = phase, total, done, 0, 0
        self._began = self._line_at = time.monotonic()
        self._counts = counts
        if self._bars is not None and again:
            self._bars.update(self._bar, completed=done)
        elif self._bars is not None:
            self._bar = self._bars.add_task(phase, total=total, completed=done, said="")
        self._status("running", force=True)

    def advance(self, rows: int, counts: Counts) -> None:
        """One more fragment is committed."""
        self._done += 1
        self._fresh += 1
        self._rows += rows
        self._counts = counts
        if self._bars is not None:
            self._bars.update(self._bar, completed=self._done, said=self._said())
        elif not self._quiet and time.monotonic() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.monotonic()
            self._print_line()
        self._status("running")

    def end(self) -> None:
        """The step is done."""
        if self._bars is not None:
            self._bars.update(self._bar, said=self._said())
        elif not self._quiet:
            self._print_line()

    def say(self, line: str) -> None:
        """A line above the bars."""
        if not self._quiet:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def finish(self, state: str, message: str = "") -> None:
        """The run ended: finished, or stopped with a message."""
        self._ended.set()
        if self._bars is not None:
            self._bars.stop()
        self._status(state, force=True, message=message)

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

    def _print_line(self) -> None:
        self._console.print(
            f"{self._phase}: {self._done}/{self._total} fragments  {self._said()}",
            highlight=False,
            soft_wrap=True,
        )

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
            **whoami(),
        }
        try:
            write_json(self._run, "status.json", record)
        except OSError:  # a full disk stops the run where results are written, not here
            return
