"""Confidence intervals by resampling people: pictures of one person are not independent of one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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
