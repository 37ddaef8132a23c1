"""Decisions of many rows as short lists of numbers: what the page keeps of each row.

A decision is `stage` alone where it was kept without a number, otherwise
[stage, verdict, reason, checks, detail]: words as numbers of `Words`, verdict as a place in VERDICTS, checks
flat as (name, score, threshold, passed) again and again. Trailing empty entries are left out.
"""

from typing import Any

import pyarrow as pa

from curation.columns import list_array
from curation.ledger import FAILED, KEPT, REJECTED

VERDICTS = (KEPT, REJECTED, FAILED)
_NUMBER = {verdict: number for number, verdict in enumerate(VERDICTS)}
_DIGITS = 5  # more are noise of float32
_LONGEST = 300  # characters of a detail

Short = int | list[Any]


class Words:
    """Words that come again and again, by number."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        """The number of a word, which it keeps."""
        if word not in self._numbers:
            self._numbers[word] = len(self.all)
            self.all.append(word)
        return self._numbers[word]


def short_decisions(column: pa.ChunkedArray, words: Words) -> list[list[Short]]:
    """Per row of a column of DECISIONS: its decisions in short.

    Works on whole columns, since a run of 100,000 photos has a million decisions.
    """
    lists = list_array(column)
    short = _short(lists.flatten(), words)
    lengths = lists.value_lengths().to_pylist()
    rows, start = [], 0
    for length in lengths:
        rows.append(short[start : start + (length or 0)])
        start += length or 0
    return rows


def _short(decisions: pa.StructArray, words: Words) -> list[Short]:
    fields = [
        decisions.field(name).to_pylist() for name in ("verdict", "reason", "score", "threshold", "detail")
    ]
    stage_of = _numbers(decisions.field("stage"), words)
    checks_of = _checks(decisions.field("checks"), words)
    found: list[Short] = []
    for stage, verdict, reason, score, threshold, detail, checks in zip(
        stage_of, *fields, checks_of, strict=True
    ):
        if not checks and score is not None:
            name = words.number(reason) if reason else -1
            checks = [name, round(score, _DIGITS), threshold, int(verdict == KEPT)]
        if verdict == KEPT and not checks and not detail:
            found.append(stage)
            continue
        entry: list[Any] = [stage, _NUMBER[verdict], words.number(reason) if reason else -1]
        if checks or detail:
            entry.append(checks)
        if detail:
            entry.append(detail[:_LONGEST])
        found.append(entry)
    return found


def _checks(column: pa.ListArray, words: Words) -> list[list[Any]]:
    values = column.flatten()
    names = _numbers(values.field("name"), words)
    flat: list[Any] = []
    scores, thresholds = values.field("score").to_pylist(), values.field("threshold").to_pylist()
    for name, score, threshold, passed in zip(
        names, scores, thresholds, values.field("passed").to_pylist(), strict=True
    ):
        flat += (name, round(score, _DIGITS), threshold, int(passed))
    found, start = [], 0
    for length in column.value_lengths().to_pylist():
        found.append(flat[4 * start : 4 * (start + (length or 0))])
        start += length or 0
    return found


def _numbers(column: pa.Array, words: Words) -> list[int]:
    encoded = column.dictionary_encode()
    known = [words.number(word or "") for word in encoded.dictionary.to_pylist()]
    return [known[place] for place in encoded.indices.to_pylist()]


def stage_of(decision: Short) -> int:
    """The number of the stage's word."""
    return decision if isinstance(decision, int) else int(decision[0])


def verdict_of(decision: Short) -> str:
    """kept, rejected or failed."""
    return KEPT if isinstance(decision, int) else VERDICTS[decision[1]]


def reason_of(decision: Short) -> int:
    """The number of the reason's word; −1 where it was kept."""
    return -1 if isinstance(decision, int) else int(decision[2])


def checks_of(decision: Short) -> list[Any]:
    """Flat (name, score, threshold, passed); empty where nothing was measured."""
    return [] if isinstance(decision, int) or len(decision) < 4 else list(decision[3])


def detail_of(decision: Short) -> str:
    """What was said beside the numbers."""
    return "" if isinstance(decision, int) or len(decision) < 5 else str(decision[4])
