"""SIGTERM and SIGINT as a question that the loop asks between two steps."""

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """While it is entered, the first of these signals is noted; a second one does what it always does.

    To be entered in the main thread, as Python's signals ask for.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._name: str | None = None
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str | None:
        """Of the signal that came, as "SIGTERM"."""
        return self._name

    def __call__(self) -> bool:
        """Whether one has come."""
        return self._name is not None

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
