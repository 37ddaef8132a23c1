"""What an evaluation found: each score with its interval, and each case with its scores.

Intervals are of people, resampled: pictures of one person are not independent of one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.evaluation.cases import Case


@dataclass(frozen=True)
class Interval:
    """Mean over people (each the mean over their pictures), 95 % interval of it, and how many of each."""

    mean: float
    low: float
    high: float
    people: int
    pictures: int


def bootstrap(scores: Mapping[str, Sequence[float]], resamples: int, seed: int = 0) -> Interval:
    """{person: scores of their pictures} → the percentile interval (Efron 1979). People without a score
    do not count. Raises ValueError where nobody has one."""
    means = np.array([np.mean(found) for found in scores.values() if len(found)])
    if not len(means):
        raise ValueError("nothing was scored")
    drawn = np.random.default_rng(seed).integers(len(means), size=(resamples, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
    pictures = sum(len(found) for found in scores.values())
    return Interval(float(means.mean()), float(low), float(high), len(means), pictures)


@dataclass(frozen=True)
class Measured:
    """One score over all cases. `unanswered` counts cases without one; they are in no mean."""

    name: str
    says: str
    interval: Interval | None
    unanswered: int


@dataclass
class Results:
    """scores {name: one for each case, in the order of `cases`}; `absent`: what was not scored, and why."""

    cases: Sequence[Case]
    resamples: int
    absent: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    scores: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, name: str, says: str, scores: list[float | None]) -> None:
        """A score of all cases."""
        self.says[name], self.scores[name] = says, scores

    def add_harmonic(self) -> None:
        """The harmonic mean of identity and text of each picture, as such results are published."""
        identity, text = self.scores.get("vlm_identity"), self.scores.get("vlm_text")
        if identity is not None and text is not None:
            both = [harmonic(a, b) for a, b in zip(identity, text, strict=True)]
            self.add("vlm_harmonic", "VLM, harmonic mean of a picture's two", both)

    def measured(self) -> list[Measured]:
        """In the order in which scores were added."""
        found = []
        for name, scores in self.scores.items():
            people: dict[str, list[float]] = {}
            for case, score in zip(self.cases, scores, strict=True):
                if score is not None:
                    people.setdefault(case.person.key, []).append(score)
            interval = bootstrap(people, self.resamples) if people else None
            found.append(Measured(name, self.says[name], interval, sum(score is None for score in scores)))
        return found

    def lines(self) -> list[str]:
        """A table, and what is absent."""
        rows = [f"{'score':<42} {'mean':>8} {'95 %':>18} {'pictures':>9}"]
        for one in self.measured():
            if one.interval is None:
                rows.append(f"{one.says:<42} {'none of the pictures has an answer':>37}")
                continue
            between = f"{one.interval.low:.4f} to {one.interval.high:.4f}"
            rows.append(f"{one.says:<42} {one.interval.mean:>8.4f} {between:>18} {one.interval.pictures:>9}")
        return rows + [f"not scored: {name}: {why}" for name, why in self.absent.items()]

    def to_json(self) -> dict[str, Any]:
        """For the last line and results.json."""
        scores: dict[str, Any] = {}
        for one in self.measured():
            scores[one.name] = {"unanswered": one.unanswered}
            if one.interval is not None:
                values = {"mean": one.interval.mean, "low": one.interval.low, "high": one.interval.high}
                scores[one.name] |= {name: round(value, 5) for name, value in values.items()}
                scores[one.name] |= {"people": one.interval.people, "pictures": one.interval.pictures}
        return {"scores": scores, "absent": self.absent}


def harmonic(a: float | None, b: float | None) -> float | None:
    """Of two scores; 0 where one is 0, None where one is missing."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 and a > 0 and b > 0 else 0.0
