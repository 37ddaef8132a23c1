"""Stage `age`: how likely each person is a minor. The vote counts for the whole identity, not for a photo.

Nobody is rejected here: one photo of a minor that a classifier takes for an adult would slip through. The
phase `identities` drops every person one of whose photos votes (curation/identities/phase.py).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.ledger import Check, Outcome, kept
from curation.models import Model
from curation.people.person_stage import ChainContext, PersonStage
from curation.people.protocols import PictureClassifier
from curation.settings.filters import AgeSettings


class Age(PersonStage):
    """Fills `minor_scores` (0 to 1), measured on the face with a margin around it."""

    name: ClassVar[str] = "age"
    fills: ClassVar[pa.Schema] = pa.schema(
        [("minor_scores", pa.list_(pa.float32())), ("age_error", pa.string())]
    )
    needs: ClassVar[tuple[str, ...]] = ("detect", "face")
    requires: ClassVar[str | None] = "faces"

    def __init__(
        self,
        settings: AgeSettings,
        models: Sequence[Model],
        classifier: PictureClassifier,
        chain: ChainContext,
    ) -> None:
        super().__init__(settings, models, chain)
        self._settings = settings
        self._classifier = classifier

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """Scores the faces of a photo side by side; where there is no face, the person's box."""
        photo = self.pixels.rgb(row)
        boxes = [(row["faces"][i] or {}).get("box") or row["boxes"][i] for i in wanted]
        crops = [_crop(photo, box, self._settings.margin) for box in boxes]
        return [{"minor_scores": float(score)} for score in self._classifier.score(crops)]

    def decide(self, table: pa.Table) -> pa.Table:
        """Notes the vote of everyone still in."""
        cut = self._settings.vote_from

        def ruling(row: dict[str, Any], i: int) -> Outcome:
            score = round(row["minor_scores"][i], 4)
            found = kept("votes: a minor" if score >= cut else "")
            return Outcome(
                found.verdict, "", score, cut, found.detail, [Check("minor", score, cut, score < cut)]
            )

        return self.rule(table, ruling)


def _crop(photo: np.ndarray, box: Sequence[float], margin: float) -> np.ndarray:
    """uint8 [h, w, 3]: the box grown by `margin` of its sides, cut at the photo's borders."""
    x0, y0, x1, y1 = box
    wide, high = (x1 - x0) * margin, (y1 - y0) * margin
    height, width = photo.shape[:2]
    left, top = max(int(x0 - wide), 0), max(int(y0 - high), 0)
    right, bottom = min(int(np.ceil(x1 + wide)), width), min(int(np.ceil(y1 + high)), height)
    if right <= left or bottom <= top:
        raise ValueError("the face lies outside the photo")
    return photo[top:bottom, left:right]
