"""Stage `minor`: a photo that votes that its person is a minor drops the whole identity.

File: identities/_minors-KEY.parquet, the identities that have such a vote.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason
from curation.fragments import Fragment
from curation.ledger import REJECTED, Outcome, is_kept, rule_rows
from curation.settings.people import AgeSettings
from curation.stage import Stage
from curation.storage import join, read_table, write_table


class Minors(Stage):
    """Rejects everyone of the identities that are given."""

    name: ClassVar[str] = "minor"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = AgeSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("minor", "a photo of this person votes that they are a minor", "people.age"),
    )

    def __init__(self, settings: AgeSettings, identities: Iterable[str]) -> None:
        super().__init__(settings)
        self._identities = frozenset(identities)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on those whom it rejects, and on nobody else."""
        names = table["identity"].to_pylist()
        outcomes = [
            Outcome(REJECTED, "minor", detail="a photo of this person votes so")
            if still_in and name in self._identities
            else None
            for name, still_in in zip(names, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)


def write_minors(
    path: str, folder: str, people: list[Fragment], assigned: str, settings: AgeSettings
) -> None:
    """Collects the identities with a vote, from the fragments of `people/` in `folder` and who is whom."""
    table = read_table(assigned, ["person_id", "identity"])
    who = dict(zip(table["person_id"].to_pylist(), table["identity"].to_pylist(), strict=True))
    found: set[str] = set()
    for fragment in people:
        rows = read_table(join(folder, fragment.name), ["person_ids", "minor_scores"]).to_pylist()
        for row in rows:
            for person_id, score in zip(row["person_ids"] or [], row["minor_scores"] or [], strict=False):
                if score is not None and round(score, 4) >= settings.vote_from and person_id in who:
                    found.add(who[person_id])
    write_table(path, pa.table({"identity": pa.array(sorted(found), pa.string())}))


def read_minors(path: str) -> list[str]:
    """The identities of `write_minors`."""
    return list(read_table(path)["identity"].to_pylist())
