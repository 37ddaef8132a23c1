"""Fits how a judge is read: the calibration of its scores, the cut, and a plot of how far they hold."""

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from html import escape
from typing import Any

import numpy as np
from scipy.special import betaincinv

from curation.outfits.judge import Weights, closeness
from curation.settings.outfits import CalibrationSettings

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
    """Bins of equal width that hold `pairs`: the mean probability `predicted`, the share `observed`."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        {
            "predicted": round(float(probabilities[place == b].mean()), 4),
            "observed": round(float(same[place == b].mean()), 4),
            "pairs": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: |predicted − observed|, weighed by pairs (Naeini et al., 2015)."""
    total = sum(b["pairs"] for b in bins)
    return round(sum(abs(b["predicted"] - b["observed"]) * b["pairs"] for b in bins) / max(total, 1), 4)


LOST = 0.005
"""Share of the same pairs that the low cut may lose."""
_MIN_SLOPE = 1e-3  # a judge whose yes means nothing still counts for something


def fit_calibration(answers: np.ndarray, alike: np.ndarray, same: np.ndarray, of: str) -> CalibrationSettings:
    """Platt's curve with the weights as they are written: five digits, none against its own evidence.

    of  the judge's identity (`judge_identity.py`)
    """
    slope, likeness, offset = platt(np.column_stack([answers, [closeness(a) for a in alike]]), same).tolist()
    if likeness < 0:  # colours that speak for "different" where they agree: chance, not knowledge
        likeness = 0.0
        slope, offset = platt(answers, same).tolist()
    return CalibrationSettings(
        of=of,
        slope=max(round(slope, 5), _MIN_SLOPE),
        likeness=round(likeness, 5),
        offset=round(offset, 5),
    )


def fit_low_cut(alike: np.ndarray, same: np.ndarray) -> float:
    """Similarity of stored colours, two digits, below which a share LOST of the same pairs lies at most."""
    return math.floor(float(np.quantile(alike[same], LOST)) * 100) / 100


def decided(answers: np.ndarray, alike: np.ndarray, calibration: CalibrationSettings) -> np.ndarray:
    """Log-odds [n] as the strategy `clusters` decides by them."""
    weights = Weights(calibration)
    return np.array([weights.of_pair(float(x), float(a)) for x, a in zip(answers, alike, strict=True)])


def held_out(
    answers: np.ndarray, alike: np.ndarray, same: np.ndarray, people: Sequence[str], of: str, folds: int = 5
) -> np.ndarray | None:
    """`decided` for each pair by weights that were fitted without its person; None with too few people.

    people [n] names: all pairs of one person are in one fold.
    """
    names = sorted(set(people))
    fold_of = {name: place % folds for place, name in enumerate(names)}
    fold = np.array([fold_of[name] for name in people])
    log_odds = np.zeros(len(same))
    for number in range(folds):
        part = fold == number
        if not same[~part].any() or same[~part].all():
            return None
        calibration = fit_calibration(answers[~part], alike[~part], same[~part], of)
        log_odds[part] = decided(answers[part], alike[part], calibration)
    return log_odds


_SIDE, _LEFT, _TOP, _BELOW = 320, 56, 40, 84


def reliability_svg(bins: Sequence[dict[str, float]], title: str) -> str:
    """One point a bin, its area by its pairs, and the diagonal on which a calibrated judge lies."""
    most = max((b["pairs"] for b in bins), default=1)
    points = "".join(
        f'<circle cx="{_x(b["predicted"]):.1f}" cy="{_y(b["observed"]):.1f}" '
        f'r="{3 + 9 * (b["pairs"] / most) ** 0.5:.1f}" fill="#2f6fb0" fill-opacity=".7">'
        f"<title>predicted {b['predicted']:.3f}, observed {b['observed']:.3f}, "
        f"{b['pairs']} pairs</title></circle>"
        for b in bins
    )
    line = " ".join(f"{_x(b['predicted']):.1f},{_y(b['observed']):.1f}" for b in bins)
    ticks = "".join(
        f'<text x="{_x(v):.0f}" y="{_TOP + _SIDE + 18}" text-anchor="middle">{v:g}</text>'
        f'<text x="{_LEFT - 8}" y="{_y(v) + 4:.0f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    width, height = _LEFT + _SIDE + 24, _TOP + _SIDE + _BELOW - 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_LEFT}" y="24" font-size="13" font-weight="600">{escape(title)}</text>'
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#bbb"/>'
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#bbb" stroke-dasharray="4 4"/>'
        f'<polyline points="{line}" fill="none" stroke="#2f6fb0"/>{points}{ticks}'
        f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 40}" text-anchor="middle">'
        "probability of the same clothes, as predicted</text>"
        f'<text transform="translate(14 {_TOP + _SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "share found the same</text></svg>\n"
    )


def _x(value: float) -> float:
    return _LEFT + _SIDE * value


def _y(value: float) -> float:
    return _TOP + _SIDE * (1 - value)
