"""A measured number, and the way in which most of them come about."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One line of the table.

    key    its name in JSON
    says   what it is, in words
    value  the number; None where there was nothing to measure
    count  how many things it was measured on; None where the value is itself a count
    """

    key: str
    says: str
    value: float | int | None
    count: int | None


def share(key: str, says: str, good: float, total: int) -> Measure:
    """good / total, rounded to 5 digits; None of nothing."""
    return Measure(key, says, round(good / total, 5) if total else None, total)
