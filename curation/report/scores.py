"""Every number that a stage compared with a threshold: histograms, and who was nearest on either side."""

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curation.funnel import NUMBERS, THRESHOLDS
from curation.outfits.phase import Outfits
from curation.report.decisions import Short, Words, checks_of, stage_of
from curation.settings import PipelineSettings
from curation.settings.base import setting_of

BINS = 48
_FEW_VALUES = 24  # whole numbers up to so many have a bin each
_TAIL = 0.005  # of the scores on either side may lie beyond the first and last bin
_ROOM = 0.03  # of the span, beyond the threshold or the tail where there are scores
_LOG_SPAN = 1000.0  # positive scores that span more are shown by powers of ten

Subject = tuple[int, int]
"""Number of a photo's row, and place of the person on it; −1 for the photo itself."""


@dataclass
class Scores:
    """The numbers of one check: parallel arrays of score, passed, row and person."""

    threshold: float | None = None
    score: "array[float]" = field(default_factory=lambda: array("d"))
    passed: "array[int]" = field(default_factory=lambda: array("b"))
    row: "array[int]" = field(default_factory=lambda: array("q"))
    person: "array[int]" = field(default_factory=lambda: array("h"))

    def add(self, score: float, passed: bool, subject: Subject) -> None:
        """One more subject."""
        self.score.append(score)
        self.passed.append(passed)
        self.row.append(subject[0])
        self.person.append(subject[1])


class ScoreBook:
    """Scores by (stage, check), in the order in which they were first met."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.scores: dict[tuple[str, str], Scores] = {}

    def add(self, decisions: list[Short], subject: Subject) -> None:
        """Takes up the numbers of the decisions about one subject."""
        for decision in decisions:
            checks = checks_of(decision)
            for place in range(0, len(checks), 4):
                name, score, threshold, passed = checks[place : place + 4]
                if name < 0 or score is None:
                    continue
                stage = self._words.all[stage_of(decision)]
                scores = self._of(stage, self._words.all[name])
                scores.threshold = threshold
                scores.add(score, bool(passed), subject)

    def add_pair(self, score: float, same: bool | None, cut: float | None, subject: Subject) -> None:
        """Takes up what the judge said of a pair."""
        scores = self._of(Outfits.name, Outfits.pairs.reason)
        scores.threshold = cut
        scores.add(score, same is True, subject)

    def _of(self, stage: str, check: str) -> Scores:
        key = (stage, check)
        if key not in self.scores:
            self.scores[key] = Scores()
        return self.scores[key]

    def range_of(self, key: str) -> tuple[float, float] | None:
        """Where nearly all scores lie that a setting is compared with, in the setting's unit."""
        for name, threshold in THRESHOLDS.items():
            if threshold.key == key and name in self.scores:
                low, high = _span(np.array(self.scores[name].score), self.scores[name].threshold)
                return low / threshold.per, high / threshold.per
        return None


def score_entries(book: ScoreBook, pipeline: PipelineSettings, near: int) -> list[dict[str, Any]]:
    """For the page, per check: histogram, threshold and the `near` subjects closest to it on each side.

    `bins` has, for each bin from `edges`, how many passed and how many did not.
    """
    entries = []
    for (stage, check), scores in book.scores.items():
        about = THRESHOLDS.get((stage, check))
        number = NUMBERS.get((stage, check))
        per = 1.0 if number is None else number.per
        values = np.array(scores.score) / per
        threshold = None if scores.threshold is None else scores.threshold / per
        passed = np.array(scores.passed, bool)
        key = None if about is None else about.key
        if key is not None and setting_of(pipeline, key) != threshold:
            key = None  # the number was compared with another rule of the stage
        edges, is_log = _edges(values, threshold)
        line = threshold
        if threshold is not None and edges[0] + 0.5 == round(edges[0] + 0.5) and edges[1] == edges[0] + 1:
            # Whole numbers: the line is between the last that passes and the first that does not.
            line = threshold - 0.5 if passed.any() and values[passed].min() >= threshold else threshold + 0.5
        inside = np.clip(values, edges[0], edges[-1])
        entries.append(
            {
                "stage": stage,
                "check": check,
                "key": key,
                "says": check.replace("_", " ") if number is None else number.quantity,
                "threshold": threshold,
                "line": line,
                "log": is_log,
                "edges": [float(f"{edge:.6g}") for edge in edges],
                "passed": np.histogram(inside[passed], edges)[0].tolist(),
                "failed": np.histogram(inside[~passed], edges)[0].tolist(),
                "beyond": [int((values < edges[0]).sum()), int((values > edges[-1]).sum())],
                "near": [_nearest(scores, values, threshold, wanted, near) for wanted in (~passed, passed)],
            }
        )
    return entries


def _span(values: np.ndarray, threshold: float | None) -> tuple[float, float]:
    low, high = (float(found) for found in np.quantile(values, (_TAIL, 1 - _TAIL)))
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    # What lies further out is counted in the last bin, which must not begin at the threshold itself.
    room = _ROOM * (high - low)
    return max(min(float(values.min()), low), low - room), min(max(float(values.max()), high), high + room)


def _edges(values: np.ndarray, threshold: float | None) -> tuple[np.ndarray, bool]:
    whole = bool(np.all(values == np.round(values)))
    least, most = float(values.min()), float(values.max())
    if threshold is not None:
        least, most = min(least, threshold), max(most, threshold)
    if whole and most - least < _FEW_VALUES and (threshold is None or threshold == round(threshold)):
        return np.arange(round(least), round(most) + 2) - 0.5, False
    low, high = _span(values, threshold)
    if low > 0 and high / low > _LOG_SPAN:
        return np.geomspace(low, high, BINS + 1), True
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1), False


def _nearest(
    scores: Scores, values: np.ndarray, threshold: float | None, wanted: np.ndarray, count: int
) -> list[list[float]]:
    """[row, person, score] of those nearest to the threshold, each subject once."""
    if threshold is None:
        return []
    places = np.flatnonzero(wanted)
    distance = np.abs(values[places] - threshold)
    order = places[np.lexsort((places, distance))[:count]]
    return [[scores.row[i], scores.person[i], float(f"{values[i]:.5g}")] for i in order.tolist()]
