"""From labelled scores to probabilities and cuts: Platt's curve, the cut for a precision, reliability."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_STEPS = 200


def choose_cut(scores: np.ndarray, same: np.ndarray, precision: float) -> dict[str, Any]:
    """The lowest cut whose accepted pairs (score ≥ cut) reach the precision, and what it gives.

    scores [n] floats; same [n] bools, both kinds present. `cut` is None where none reaches it.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(same[order])
    reached = hits / np.arange(1, len(scores) + 1)
    # A cut lies between two scores: equal scores are accepted together.
    last_of_score = np.r_[scores[order][1:] != scores[order][:-1], True]
    good = np.flatnonzero((reached >= precision) & last_of_score)
    if len(good) == 0:
        best = float(reached[last_of_score].max())
        return {"cut": None, "precision": round(best, 4), "recall": None, "accuracy": None}
    place = int(good[-1])
    cut = math.floor(float(scores[order][place]) * 1e5) / 1e5
    accepted = scores >= cut
    return {
        "cut": cut,
        "precision": round(float(same[accepted].mean()), 4),
        "recall": round(float(accepted[same].mean()), 4),
        "accuracy": round(float((accepted == same).mean()), 4),
    }


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


def held_out(
    features: np.ndarray, same: np.ndarray, people: Sequence[str], folds: int = 5
) -> np.ndarray | None:
    """Log-odds of each pair by curves that were fitted without its person; None with too few people.

    people [n] names: all pairs of one person are in one fold.
    """
    names = sorted(set(people))
    fold_of = {name: place % folds for place, name in enumerate(names)}
    fold = np.array([fold_of[name] for name in people])
    log_odds = np.zeros(len(same))
    for number in range(folds):
        rest = same[fold != number]
        if not rest.any() or rest.all():
            return None
        weights = platt(features[fold != number], rest)
        log_odds[fold == number] = features[fold == number] @ weights[:-1] + weights[-1]
    return log_odds


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
