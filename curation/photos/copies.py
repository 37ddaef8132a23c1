"""Stage `copies`: rejects photos that another one stands for (`photos/duplicates.py` says which do)."""

from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason, Threshold
from curation.ledger import REJECTED, Outcome, is_kept, kept, rule_rows
from curation.settings.photos import DuplicateSettings
from curation.stage import Stage


class Copies(Stage):
    """Stage `copies`: rejects what another photo stands for, as `exact_copy` or `near_copy`."""

    name: ClassVar[str] = "copies"
    unit: ClassVar[str] = "photo"
    fills: ClassVar[pa.Schema] = pa.schema(
        [("copy_of", pa.string()), ("copy_exact", pa.bool_()), ("copy_bits", pa.int16())]
    )

    settings_type: ClassVar[Any] = DuplicateSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("exact_copy", "another photo has the same bytes; the detail names it"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("near_copy", "photos.duplicates.max_bits", "above", "bits between a copy and its original"),
    )

    def __init__(self, settings: DuplicateSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules by the columns of `fills`."""
        rows = table.select([*self.fills.names, "copy_key"]).to_pylist()
        outcomes = [
            self._rule(row) if still_in else None for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        if row["copy_of"] is None:
            return kept()
        detail = f"of {row['copy_of']} ({row['copy_key']})"
        if row["copy_exact"]:
            return Outcome(REJECTED, "exact_copy", detail=detail)
        return Outcome(REJECTED, "near_copy", row["copy_bits"], self._settings.max_bits, detail)
