"""Tells a person, now and then, for how long a server has been waited for."""

import time
from collections.abc import Callable

EVERY_S = 60.0


class Waiting:
    """Begins when it is made. `what` is not there yet, as "vLLM is not ready"."""

    def __init__(
        self, what: str, limit_s: float, say: Callable[[str], None], every_s: float = EVERY_S
    ) -> None:
        self._what, self._limit_s, self._say, self._every_s = what, limit_s, say, every_s
        self._began = self._told = time.monotonic()

    def is_over(self) -> bool:
        """Whether the limit is reached; says so much as a line where it is time for one."""
        now = time.monotonic()
        waited = now - self._began
        if waited >= self._limit_s:
            return True
        if now - self._told >= self._every_s:
            self._told = now
            self._say(f"{self._what} after {waited:.0f} s; waiting up to {self._limit_s:g} s")
        return False
