"""The weights of a pair's evidence, fitted on labelled pairs, and what they give for other people.

said     float [n]: mean of the judge's own log-odds over both orders of a pair (`evidence.log_odds_of`)
alike    float [n], 0 to 1: similarity of stored colours, known
same     bool [n]: the labels, of both kinds
"""

import math
from collections.abc import Sequence

import numpy as np

from curation.outfits.evidence import Weights, closeness
from curation.outfits.fit import platt
from curation.settings.outfits import CalibrationSettings

LOST = 0.005
"""Share of the same pairs that the low cut may lose."""
_MIN_SLOPE = 1e-3  # a judge whose yes means nothing still counts for something


def fit_calibration(said: np.ndarray, alike: np.ndarray, same: np.ndarray, of: str) -> CalibrationSettings:
    """Platt's curve with the weights as they are written: five digits, none against its own evidence.

    of  the judge's identity (`judge_identity.py`)
    """
    slope, likeness, offset = platt(np.column_stack([said, [closeness(a) for a in alike]]), same).tolist()
    if likeness < 0:  # colours that speak for "different" where they agree: chance, not knowledge
        likeness = 0.0
        slope, offset = platt(said, same).tolist()
    return CalibrationSettings(
        of=of,
        slope=max(round(slope, 5), _MIN_SLOPE),
        likeness=round(likeness, 5),
        offset=round(offset, 5),
    )


def fit_low_cut(alike: np.ndarray, same: np.ndarray) -> float:
    """Similarity of stored colours, two digits, below which a share LOST of the same pairs lies at most."""
    return math.floor(float(np.quantile(alike[same], LOST)) * 100) / 100


def decided(said: np.ndarray, alike: np.ndarray, calibration: CalibrationSettings) -> np.ndarray:
    """Log-odds [n] as the strategy `clusters` decides by them."""
    weights = Weights(calibration)
    return np.array([weights.of_pair(float(x), float(a)) for x, a in zip(said, alike, strict=True)])


def held_out(
    said: np.ndarray, alike: np.ndarray, same: np.ndarray, people: Sequence[str], of: str, folds: int = 5
) -> np.ndarray | None:
    """`decided` for each pair by weights that were fitted without its person; None with too few people.

    people [n] names: all pairs of one person are in one fold.
    """
    names = sorted(set(people))
    fold_of = {name: place % folds for place, name in enumerate(names)}
    fold = np.array([fold_of[name] for name in people])
    log_odds = np.zeros(len(same))
    for number in range(folds):
        mine = fold == number
        if not same[~mine].any() or same[~mine].all():
            return None
        calibration = fit_calibration(said[~mine], alike[~mine], same[~mine], of)
        log_odds[mine] = decided(said[mine], alike[mine], calibration)
    return log_odds
