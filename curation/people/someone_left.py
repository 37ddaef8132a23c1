"""Stage `people`: a photo of which no person is left is rejected; failed where one failed."""

from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason
from curation.ledger import (
    FAILED,
    KEPT,
    REJECTED,
    Outcome,
    failed,
    is_kept,
    kept,
    last_decisions,
    rule_rows,
)
from curation.people.chain import ChainContext, ChainStage
from curation.settings.people import PeopleSettings


class SomeoneLeft(ChainStage):
    """The step back from people to photos: what became of a photo by its people."""

    name: ClassVar[str] = "people"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = PeopleSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("nobody_left", "every person on the photo was rejected; the detail has their reasons"),
        Reason("person_failed", "nobody is left, and a person failed; the detail says where", verdict=FAILED),
    )
    version: ClassVar[int] = 1

    @classmethod
    def of(cls, people: PeopleSettings, chain: ChainContext) -> "SomeoneLeft":
        """The stage, whose decisions are stamped with all of the phase's settings and with no weights."""
        return cls(people, chain, {})

    def rule(self, photos: pa.Table, people: pa.Table) -> pa.Table:
        """The photos, with a decision on every photo still in."""
        ends: dict[str, list[dict[str, Any]]] = {}
        last = last_decisions(people).to_pylist()
        for key, decision in zip(people["source_key"].to_pylist(), last, strict=True):
            ends.setdefault(key, []).append(decision)
        keys = photos["source_key"].to_pylist()
        outcomes = [
            _ruling(ends[key]) if still_in else None
            for key, still_in in zip(keys, is_kept(photos), strict=True)
        ]
        return rule_rows(photos, self.stamp, outcomes)


def _ruling(ends: list[dict[str, Any]]) -> Outcome:
    """`ends`: the last decision on each person of a photo."""
    verdicts = {decision["verdict"] for decision in ends}
    if KEPT in verdicts:
        return kept()
    if FAILED in verdicts:
        failures = {f"{d['stage']}: {d['detail'] or d['reason']}" for d in ends if d["verdict"] == FAILED}
        return failed("person_failed", "; ".join(sorted(failures))[:300])
    reasons = sorted({decision["reason"] for decision in ends})
    return Outcome(REJECTED, "nobody_left", detail=", ".join(reasons))
