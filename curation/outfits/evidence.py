"""What answers and stored colours weigh: the log-odds that two photos show the same clothes."""

import math

from curation.outfits.judge import Answer, logit
from curation.settings.outfits import CalibrationSettings

# The log-odds of a judge that says yes or no without a score: of one that is right 19 times in 20.
_PLAIN = logit(0.95)
_MOST = logit(1.0)  # of any answer


def log_odds_of(answer: Answer) -> float:
    """The judge's own log-odds of "same"; 0 where it cannot tell."""
    if answer.same is None:
        return 0.0
    if answer.score is None:
        return _PLAIN if answer.same else -_PLAIN
    return logit(answer.score)


def closeness(alike: float) -> float:
    """−log(1.001 − alike), 0 to 6.9: near 1 a small difference means more. 0 where nothing is known (NaN)."""
    return 0.0 if math.isnan(alike) else -math.log(1.001 - min(alike, 1.0))


class Weights:
    """A calibration applied to a pair; without one the judge is believed as it is.

    What runs, what is fitted and what is measured all decide by `of_pair`.
    """

    def __init__(self, calibration: CalibrationSettings | None) -> None:
        self._calibration = calibration

    def of_pair(self, said: float, alike: float) -> float:
        """Log-odds from the mean of the judge's own and the similarity of stored colours.

        alike  0 to 1; NaN where the photos share no region: unknown, so never the same

        Colours alone never accept: where the judge does not lean to yes, the result does not either.
        """
        if self._calibration is None:
            return said
        calibration = self._calibration
        weighed = calibration.slope * said + calibration.likeness * closeness(alike) + calibration.offset
        return weighed if said > 0 else min(weighed, 0.0)

    def at_most(self, alike: float) -> float:
        """Log-odds if the judge were as sure as it can be."""
        return self.of_pair(_MOST, alike)
