"""What a score is, to everything that is not one: a file for each kind stands beside this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.evaluation.cases import Case


@dataclass(frozen=True)
class Pictured:
    """A case and its picture, uint8 [h, w, 3] RGB."""

    case: Case
    picture: np.ndarray


class Scorer(Protocol):
    """One kind of score; higher is better.

    name    in results, as clip_t
    says    for people
    key     changes with the model and all else that a score depends on: remembered scores have it
    """

    name: str
    says: str
    key: str

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """One a picture; None where there is no answer, as where no face was found."""
        ...


class MissingScorerError(ValueError):
    """A model that is asked for and cannot be had; `str()` is one line that names it."""
