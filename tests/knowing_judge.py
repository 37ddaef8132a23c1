"""A judge as a plugin that knows the outfits of `tests.drawn_people.collection`, and is unsure at times.

The first photo of every outfit is too dark for it: of that one it cannot tell, though its scores are high.
"""

from collections.abc import Sequence
from typing import Any

from curation.outfits.judge import Answer, PersonRow

PHOTOS = 3  # of each outfit


class KnowingJudge:
    """Right about every pair that it can tell; the score of a yes grows with the photos' numbers."""

    columns = ("file_name",)
    asks_model = False

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair."""
        return [self._answer(_number(a), _number(b)) for a, b in pairs]

    def _answer(self, a: int, b: int) -> Answer:
        if a % PHOTOS == 0 or b % PHOTOS == 0:
            return Answer(None, 0.95, 0.5, "says unclear")
        same = a // PHOTOS == b // PHOTOS
        score = round((0.8 if same else 0.3) + 0.001 * ((a + b) % 100), 6)
        return Answer(same, score, 0.5, "says yes" if same else "says no")


def _number(person: PersonRow) -> int:
    return int(person["file_name"].removeprefix("photo-").removesuffix(".jpg"))
