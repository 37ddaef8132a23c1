"""Stage `people`: a photo of which no person is left is rejected; failed where one failed."""

from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason
from curation.ledger import FAILED, KEPT, REJECTED, Outcome, failed, is_kept, kept, rule_rows
from curation.people.chain import ChainContext, ChainStage
from curation.settings.people import PeopleSettings


class SomeoneLeft(ChainStage):
    """The last stage of the phase: what became of a photo by its people."""

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

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every photo still in."""
        rows = table.select(["person_verdicts", "person_decisions"]).to_pylist()
        outcomes = [
            _ruling(row) if still_in else None for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)


def _ruling(row: dict[str, Any]) -> Outcome:
    verdicts = row["person_verdicts"]
    if KEPT in verdicts:
        return kept()
    last = [decisions[-1] for decisions in row["person_decisions"]]
    if FAILED in verdicts:
        failures = {f"{d['stage']}: {d['detail'] or d['reason']}" for d in last if d["verdict"] == FAILED}
        return failed("person_failed", "; ".join(sorted(failures))[:300])
    reasons = sorted({decision["reason"] for decision in last})
    return Outcome(REJECTED, "nobody_left", detail=", ".join(reasons))
