"""What a judge of pairs must do, whatever answers behind it: descriptors, or a VLM server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PersonRow = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a judge says of two photos of a person.

    same       True, False, or None where it cannot tell
    score      what `threshold` was applied to; None where nothing was measured
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
