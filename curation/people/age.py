"""Stage `age`: how likely each person is a minor. The vote counts for the whole identity, not for a photo.

Nobody is rejected here: one photo of a minor that a classifier takes for an adult would slip through. The
phase `identities` drops every person one of whose photos votes (curation/identities/phase.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Number
from curation.ledger import KEPT, Check, Outcome
from curation.people.detect import Detect
from curation.people.face import FaceStage
from curation.people.person_stage import Measured, People, Person, PersonStage
from curation.settings.people import AgeSettings


class Age(PersonStage):
    """Fills `minor_score` (0 to 1), measured on the face with a margin around it."""

    name: ClassVar[str] = "age"
    fills: ClassVar[pa.Schema] = pa.schema([("minor_score", pa.float32()), ("age_error", pa.string())])
    needs: ClassVar[tuple[str, ...]] = (Detect.name, FaceStage.name)
    requires: ClassVar[str | None] = "face"
    settings_type: ClassVar[Any] = AgeSettings
    numbers: ClassVar[Mapping[str, Number]] = {"minor": Number("below", "score of a minor")}

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """Scores the faces of a photo side by side; where there is no face, the person's box."""
        boxes = [person["face"]["box"] or person["box"] for person in wanted]
        crops = [_crop(photo, box, self.settings.margin) for box in boxes]
        return [{"minor_score": float(score)} for score in self.backends["by"].score(crops)]

    def ruling(self, row: Person) -> Outcome:
        """Keeps everyone, and notes the vote."""
        cut, score = self.settings.vote_from, round(row["minor_score"], 4)
        vote = Check("minor", score, cut, score < cut)
        return Outcome(KEPT, "", score, cut, "" if vote.passed else "votes: a minor", [vote])


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
