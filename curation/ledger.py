"""The ledger: what every stage ruled about every row, and the counts that check themselves.

A decision is (stage, verdict, reason, score, threshold, detail, model, config, checks). `rejected`
means measured and found wanting; `failed` means that we do not know. A row that is ruled out is
passed on untouched by later stages, so a table's last decision says where a row ended.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from curation.columns import list_array, put_column

Verdict = Literal["kept", "rejected", "failed"]
KEPT: Verdict = "kept"
REJECTED: Verdict = "rejected"
FAILED: Verdict = "failed"
ERROR = "error"  # reason: measuring broke down
NOT_MEASURED = "not_measured"  # reason: a stage decides on a row that its model was never asked about

CHECK = pa.struct(
    [
        ("name", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("passed", pa.bool_()),
    ]
)
DECISION = pa.struct(
    [
        ("stage", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("detail", pa.string()),
        ("model", pa.string()),
        ("config", pa.string()),
        ("checks", pa.list_(CHECK)),
    ]
)
DECISIONS = pa.list_(DECISION)


@dataclass(frozen=True)
class Check:
    """One measured number beside its threshold. `name` is the reason given when it did not pass."""

    name: str
    score: float
    threshold: float
    passed: bool


def at_least(name: str, score: float, threshold: float) -> Check:
    """Passes when score ≥ threshold."""
    return Check(name, float(score), float(threshold), score >= threshold)


def at_most(name: str, score: float, threshold: float) -> Check:
    """Passes when score ≤ threshold."""
    return Check(name, float(score), float(threshold), score <= threshold)


@dataclass(frozen=True)
class Outcome:
    """What a stage ruled about one row, before it is stamped with the stage's name and config."""

    verdict: Verdict
    reason: str = ""
    score: float | None = None
    threshold: float | None = None
    detail: str = ""
    checks: Sequence[Check] = field(default=())


def kept(detail: str = "") -> Outcome:
    """The row goes on."""
    return Outcome(KEPT, detail=detail)


def failed(reason: str, detail: str = "") -> Outcome:
    """We do not know: `persona retry` takes such rows up again."""
    return Outcome(FAILED, reason, detail=detail)


def judged(checks: Sequence[Check], detail: str = "") -> Outcome:
    """Rejected by the first check that did not pass, otherwise kept; all checks are recorded."""
    for check in checks:
        if not check.passed:
            return Outcome(REJECTED, check.name, check.score, check.threshold, detail, checks)
    if len(checks) == 1:
        return Outcome(KEPT, "", checks[0].score, checks[0].threshold, detail, checks)
    return Outcome(KEPT, detail=detail, checks=checks)


@dataclass(frozen=True)
class Stamp:
    """Who ruled: the stage, the models it asked (`name@sha256:12`), the hash of its settings."""

    stage: str
    model: str
    config: str

    def decision(self, outcome: Outcome) -> dict[str, Any]:
        """The outcome as a row of the `DECISION` type."""
        return {
            "stage": self.stage,
            "verdict": outcome.verdict,
            "reason": outcome.reason,
            "score": outcome.score,
            "threshold": outcome.threshold,
            "detail": outcome.detail,
            "model": self.model,
            "config": self.config,
            "checks": [
                {
                    "name": check.name,
                    "score": check.score,
                    "threshold": check.threshold,
                    "passed": bool(check.passed),
                }
                for check in outcome.checks
            ],
        }


def rule_rows(table: pa.Table, stamp: Stamp, outcomes: Sequence[Outcome | None]) -> pa.Table:
    """Adds one decision to each row that has an outcome; None leaves a row untouched.

    Columns `verdict` (string) and `decisions` (DECISIONS) are read and replaced; absent ones start
    as kept and empty.
    """
    verdicts, lists = _standing(table)
    rows = [row for row, outcome in enumerate(outcomes) if outcome is not None]
    given = [outcome for outcome in outcomes if outcome is not None]
    for row, outcome in zip(rows, given, strict=True):
        verdicts[row] = outcome.verdict
    # What was decided before stays as it is: only what is new becomes an object on its way.
    fresh = pa.array([stamp.decision(outcome) for outcome in given], DECISION)
    ends = lists.offsets.to_numpy()
    values = pa.concat_arrays([lists.values.cast(DECISION), fresh])
    order = np.insert(
        np.arange(ends[0], ends[-1]), ends[1:][rows] - ends[0], len(lists.values) + np.arange(len(rows))
    )
    more = np.zeros(len(ends), np.int32)
    more[np.array(rows, np.intp) + 1] = 1
    decisions = pa.ListArray.from_arrays(
        pa.array(ends - ends[0] + np.cumsum(more), pa.int32()), values.take(order)
    )
    table = put_column(table, "verdict", pa.array(verdicts, pa.string()))
    return put_column(table, "decisions", decisions.cast(DECISIONS))


def last_decisions(table: pa.Table) -> pa.StructArray:
    """Per row: its last decision, of the `DECISION` type. Every row has one."""
    lists = list_array(table["decisions"])
    return lists.values.take(pa.array(lists.offsets.to_numpy()[1:] - 1))


def is_kept(table: pa.Table) -> list[bool]:
    """Per row: no stage has ruled it out so far."""
    if "verdict" not in table.column_names:
        return [True] * table.num_rows
    return [verdict == KEPT for verdict in table["verdict"].to_pylist()]


def _standing(table: pa.Table) -> tuple[list[str], pa.ListArray]:
    """Verdicts and decisions as they are."""
    if "verdict" not in table.column_names:
        return [KEPT] * table.num_rows, pa.array([[]] * table.num_rows, DECISIONS)
    return table["verdict"].to_pylist(), list_array(table["decisions"])


def plural(unit: str) -> str:
    """Several rows of a unit, in words: photos, people, identities, groups."""
    return {"person": "people", "identity": "identities"}.get(unit, f"{unit}s")


class Counts:
    """Per stage: how many rows came in, and how many were kept, rejected, failed, and why.

    `in = kept + rejected + failed` holds by construction of one decision per row and stage;
    `add` is the sum over fragments, so counts of any partition of the rows agree.
    """

    def __init__(self) -> None:
        self.stages: dict[str, Counter[str]] = {}
        self.units: dict[str, str] = {}

    def count(self, unit: str, decisions: Iterable[Sequence[dict[str, Any]]], only: str = "") -> None:
        """Counts the decisions of rows of one `unit` (photo, person, ...); `only` names a stage."""
        for row in decisions:
            for decision in row:
                stage = decision["stage"]
                if only and stage != only:
                    continue
                self.units[stage] = unit
                counter = self.stages.setdefault(stage, Counter())
                counter["in"] += 1
                counter[decision["verdict"]] += 1
                if decision["verdict"] != KEPT:
                    counter[f"reason:{decision['reason']}"] += 1

    def add(self, other: dict[str, Any]) -> None:
        """Adds counts that `to_json` wrote."""
        for stage, entry in other.items():
            self.units[stage] = entry["unit"]
            counter = self.stages.setdefault(stage, Counter())
            for name in ("in", KEPT, REJECTED, FAILED):
                counter[name] += entry[name]
            for reason, number in entry["reasons"].items():
                counter[f"reason:{reason}"] += number

    def to_json(self) -> dict[str, Any]:
        """{stage: {unit, in, kept, rejected, failed, reasons}}, stages in the order first seen."""
        return {
            stage: {
                "unit": self.units[stage],
                "in": counter["in"],
                KEPT: counter[KEPT],
                REJECTED: counter[REJECTED],
                FAILED: counter[FAILED],
                "reasons": {
                    name.removeprefix("reason:"): number
                    for name, number in sorted(counter.items())
                    if name.startswith("reason:")
                },
            }
            for stage, counter in self.stages.items()
        }


def counts_again(counts: dict[str, Any], decisions: Iterable[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """The `counts` that `to_json` wrote, counted anew from the decisions of the rows that are there now."""
    found = Counts()
    for stage, entry in counts.items():
        found.stages[stage], found.units[stage] = Counter(), entry["unit"]
    for row in decisions:
        for decision in row:
            if decision["stage"] in counts:
                found.count(counts[decision["stage"]]["unit"], [[decision]])
    return found.to_json()
