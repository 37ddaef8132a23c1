"""What a judge of outfits is asked and answers, and how much evidence an answer is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from curation.settings.outfits import CalibrationSettings

JUDGED_REGIONS = {
    "upper": "the garment on the upper body",
    "lower": "the garment on the legs, or the skirt of a dress",
    "shoes": "the shoes",
    "headwear": "what is worn on the head",
    "outer": "the outermost layer, such as a jacket or a coat",
}
"""What a judge is asked about region by region, and how a question names it."""

PersonRow = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a judge says of two photos of a person.

    same       True, False, or None where it cannot tell
    score      0 to 1, what `threshold` was applied to; None where nothing was measured
    error      why there is no answer: then we do not know, and the row is failed
    detail     for people to read, such as the similarity of each region
    """

    same: bool | None
    score: float | None = None
    threshold: float | None = None
    detail: str = ""
    error: str | None = None


class PairJudge(Protocol):
    """Answers whether two photos show the same full-body appearance."""

    columns: tuple[str, ...]
    """The columns of a person that it reads."""
    asks_model: bool
    """Whether each answer counts as a call of a model; a judge that remembers answers counts by itself."""

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair; never raises for a pair, but answers with `error`."""
        ...


@runtime_checkable
class JudgesRegions(Protocol):
    """A judge that can also be asked region by region: upper, lower, shoes, headwear, outer layer."""

    def ask_regions(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair: no where any region differs, yes where two or more are the same and none
        differs, else None. A region that one photo does not show is unknown, never "same"."""
        ...


def logit(probability: float) -> float:
    """log p − log(1 − p), natural; p is kept 1e-6 away from 0 and 1, the precision of stored scores."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p) - math.log1p(-p)


def probability(log_odds: float) -> float:
    """The inverse of `logit`."""
    return 1 / (1 + math.exp(-min(max(log_odds, -700.0), 700.0)))


def from_regions(answers: dict[str, Answer]) -> Answer:
    """The answer on a pair from those on its regions (`JudgesRegions`). A region's error is the pair's."""
    broken = next((answer for answer in answers.values() if answer.error is not None), None)
    if broken is not None:
        return broken
    words = {True: "same", False: "differs", None: "not seen"}
    detail = ", ".join(f"{region} {words[answer.same]}" for region, answer in answers.items())
    seen = [answer for answer in answers.values() if answer.same is not None]
    if len(seen) >= 2 and all(answer.same for answer in seen):
        same: bool | None = True
    else:
        same = False if any(answer.same is False for answer in seen) else None
    if same is None:
        return Answer(None, detail=detail)
    # The least alike region speaks for the pair: two outfits may share all others.
    worst = min((answer for answer in seen if answer.score is not None), key=_score, default=None)
    if worst is None:
        return Answer(same, detail=detail)
    return Answer(same, worst.score, worst.threshold, detail)


def _score(answer: Answer) -> float:
    return answer.score or 0.0


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

    def __init__(self, calibration: "CalibrationSettings | None") -> None:
        self._calibration = calibration

    def of_pair(self, log_odds: float, alike: float) -> float:
        """Log-odds from the mean of the judge's own and the similarity of stored colours.

        alike  0 to 1; NaN where the photos share no region: unknown, so never the same

        Colours alone never accept: where the judge does not lean to yes, the result does not either.
        """
        if self._calibration is None:
            return log_odds
        calibration = self._calibration
        weighed = calibration.slope * log_odds + calibration.likeness * closeness(alike) + calibration.offset
        return weighed if log_odds > 0 else min(weighed, 0.0)

    def at_most(self, alike: float) -> float:
        """Log-odds if the judge were as sure as it can be."""
        return self.of_pair(_MOST, alike)
