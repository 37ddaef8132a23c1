"""What this process has asked of servers: requests by outcome, what was sent again, how many at once."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
