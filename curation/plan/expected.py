"""A number that is expected, with its bounds: the median of draws, and where nine in ten of them lie."""

from dataclasses import dataclass

import numpy as np

DRAWS = 1000
_LOW, _HIGH = 5, 95  # percentiles


@dataclass(frozen=True)
class Expected:
    """`low` and `high` bound the middle 90 % of the draws."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: np.ndarray | float) -> "Expected":
        """From draws, or from a number that is known."""
        values = np.atleast_1d(np.asarray(draws, float))
        low, middle, high = np.percentile(values, [_LOW, 50, _HIGH])
        return cls(float(middle), float(low), float(high))

    def to_json(self, digits: int = 0) -> dict[str, float]:
        """Rounded: whole numbers for digits = 0."""
        values = {"expected": self.expected, "low": self.low, "high": self.high}
        return {key: round(value, digits) if digits else round(value) for key, value in values.items()}
