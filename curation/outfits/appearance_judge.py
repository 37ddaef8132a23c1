"""A PairJudge without a model: compares stored colour and texture, region by region.

A region that one photo does not show is unknown, never "same". The worst region decides, because
two outfits that share their trousers differ only in the shirt.
"""

from collections.abc import Sequence

import numpy as np

from curation.models import Models
from curation.outfits.judge import Answer, PersonRow
from curation.people.appearance import CLOTHED, vector_of
from curation.settings.outfits import AppearanceJudgeSettings

_NAMES = tuple(CLOTHED)


class AppearanceJudge:
    """Same when the least similar region that both photos show reaches the cut."""

    columns = ("appearance",)
    asks_model = False

    def __init__(self, settings: AppearanceJudgeSettings, models: Models) -> None:
        self._settings = settings

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair; cannot tell where too few regions are seen on both."""
        return [self._answer(*pair) for pair in pairs]

    def _answer(self, a: PersonRow, b: PersonRow) -> Answer:
        similarity = region_similarities(vector_of(a["appearance"]), vector_of(b["appearance"]))
        detail = ", ".join(f"{name} {value:.3f}" for name, value in similarity.items()) or "no region"
        if len(similarity) < self._settings.min_regions:
            return Answer(None, detail=f"seen on both: {detail}")
        score = round(min(similarity.values()), 5)
        return Answer(score >= self._settings.cut, score, self._settings.cut, detail)


def region_similarities(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Bhattacharyya coefficient, 0 to 1, of each region that both describe."""
    return {
        name: float(np.sqrt(a[i] * b[i]).sum() / np.sqrt(a[i].sum() * b[i].sum()))
        for i, name in enumerate(_NAMES)
        if a[i].any() and b[i].any()
    }


def similarities(appearances: Sequence[bytes | None]) -> np.ndarray:
    """float64 [n, n], 0 to 1: the mean over the regions that both photos show of their similarity.

    appearances  as the stage `appearance` stores them; None where a photo could not be described

    NaN where two photos share no described region: nothing is known of them.
    """
    vectors = [None if data is None else vector_of(data) for data in appearances]
    found = np.full((len(vectors), len(vectors)), np.nan)
    for i, a in enumerate(vectors):
        found[i, i] = 1.0
        for j, b in enumerate(vectors[:i]):
            if a is None or b is None:
                continue
            regions = region_similarities(a, b)
            if regions:
                # Rounded, so that no order depends on how a machine adds floats.
                found[i, j] = found[j, i] = round(sum(regions.values()) / len(regions), 5)
    return found
