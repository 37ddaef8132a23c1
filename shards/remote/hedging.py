"""When a slow request is worth a second one, and how many of those may be sent.

A few requests to an object store take many times as long as the rest, and a batch waits for its slowest
(Dean and Barroso, The Tail at Scale, CACM 2013). The same request, sent again, is mostly answered at
once. Second requests are bounded to a share of the first ones, so that a store which slows down as a
whole is not asked twice as much.
"""

from collections import defaultdict, deque

_QUANTILE = 0.9  # of recent requests; with up to a tenth of them slow it still lies among the fast ones
_FACTOR = 1.5
_FLOOR_S = 0.01
_REMEMBERED = 128  # requests of one size class
_ENOUGH = 16
_BURST = 4  # second requests that need not be earned


class Hedging:
    """Knows how long requests took. Not safe for several threads.

    share   second requests that may be sent, of first ones; 0 sends none
    """

    def __init__(self, share: float = 0.06) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of second requests must be 0 to 1, not {share}")
        self._share = share
        self._taken: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._waits: dict[int, float] = {}
        self.requests = 0
        self.hedges = 0

    def patience_s(self, length: int) -> float | None:
        """How long to wait for a request of so many bytes before a second one; None: not known yet."""
        return self._waits.get(length.bit_length())

    def took(self, length: int, seconds: float) -> None:
        """A first request was answered, or overtaken, after so long."""
        size = length.bit_length()
        taken = self._taken[size]
        taken.append(seconds)
        self.requests += 1
        if len(taken) >= _ENOUGH and (self.requests % 8 == 0 or size not in self._waits):
            ordered = sorted(taken)
            self._waits[size] = max(_FACTOR * ordered[int(_QUANTILE * (len(ordered) - 1))], _FLOOR_S)

    def allowed(self) -> bool:
        """Takes leave to send one second request; False where the share is used up."""
        if self._share == 0 or self.hedges >= self._share * self.requests + _BURST:
            return False
        self.hedges += 1
        return True
