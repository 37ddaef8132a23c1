"""From labelled scores to probabilities and cuts: Platt's curve, the cut for a precision, reliability."""

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
from scipy.special import betaincinv

# Of fewer pairs, all of them right, nobody can say with 95 % confidence that the precision is 0.9 (29 can).
LEAST_PAIRS = 30
_FIGURES = ("cut", "accepted", "precision", "at_least", "recall", "accuracy")
_STEPS = 200


def choose_cut(
    scores: np.ndarray, same: np.ndarray, precision: float, least_pairs: int = LEAST_PAIRS
) -> dict[str, Any]:
    """The lowest cut whose accepted pairs (score ≥ cut) reach the precision, and what it gives.

    scores       float [n]; NaN: accepted by no cut
    same         bool [n]
    least_pairs  accepted pairs without which no cut is named

    Returns `cut`, `accepted` (pairs), their `precision` and its lower bound `at_least`, `recall` and
    `accuracy` over all n. All are None where no cut reaches the precision, but `precision`, which is the best
    that a cut with so many pairs has (None: there is none). The figures are of the pairs among which the cut
    was chosen, so they flatter it a little.
    """
    places = np.flatnonzero(~np.isnan(scores))
    order = places[np.argsort(-scores[places], kind="stable")]
    ranked, right = scores[order], same[order]
    reached = np.cumsum(right) / np.arange(1, len(order) + 1)
    # A cut lies between two scores: equal scores are accepted together.
    possible = np.append(ranked[1:] != ranked[:-1], True)[: len(order)]
    possible[: least_pairs - 1] = False
    good = np.flatnonzero((reached >= precision) & possible)
    if len(good) == 0:
        best = float(reached[possible].max()) if possible.any() else None
        # Rounded down, so that it never reads as the precision that it misses.
        shown = None if best is None else math.floor(best * 1e4) / 1e4
        return {**dict.fromkeys(_FIGURES), "precision": shown}
    count = int(good[-1]) + 1
    cut = _between(float(ranked[count]) if count < len(ranked) else -math.inf, float(ranked[count - 1]))
    accepted = scores >= cut
    return {
        "cut": cut,
        "accepted": count,
        "precision": round(float(same[accepted].mean()), 4),
        "at_least": math.floor(precision_at_least(int(same[accepted].sum()), count) * 1e4) / 1e4,
        "recall": round(float(accepted[same].mean()), 4) if same.any() else None,
        "accuracy": round(float((accepted == same).mean()), 4),
    }


def precision_at_least(hits: int, accepted: int) -> float:
    """What the precision is at least, with 95 % confidence: Clopper and Pearson's one-sided bound (1934).

    Exact for pairs that are independent; those of one person are not quite.
    """
    return float(betaincinv(hits, accepted - hits + 1, 0.05)) if hits else 0.0


def _between(lower: float, score: float) -> float:
    """The number with the fewest digits, five or more, that is above `lower` and at most `score`."""
    for digits in range(5, 17):
        step = Decimal(1).scaleb(-digits)
        cut = float(Decimal(repr(score)).quantize(step, ROUND_FLOOR))
        if lower < cut:
            return cut
    return score


def platt(features: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Weights of log-odds = features · weights[:-1] + weights[-1], by Newton's method.

    features float [n] or [n, k]; same [n] bools. Targets are smoothed as in Platt, Probabilistic outputs for
    support vector machines (1999), so that separable scores give a finite curve.
    """
    positive, negative = int(same.sum()), int((~same).sum())
    target = np.where(same, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.column_stack([features, np.ones(len(same))])
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -60, 60)))
        gradient = design.T @ (chance - target)
        curvature = chance * (1 - chance)
        hessian = design.T @ (design * curvature[:, None]) + 1e-9 * np.eye(design.shape[1])
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 10)
        if np.abs(step).max() < 1e-9:
            break
    return weights


def reliability(probabilities: np.ndarray, same: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Bins of equal width that hold pairs: mean probability `said`, share `found` the same, `pairs` in it."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        {
            "said": round(float(probabilities[place == b].mean()), 4),
            "found": round(float(same[place == b].mean()), 4),
            "pairs": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: |said − found|, weighed by pairs (Naeini et al., 2015)."""
    total = sum(b["pairs"] for b in bins)
    return round(sum(abs(b["said"] - b["found"]) * b["pairs"] for b in bins) / max(total, 1), 4)
