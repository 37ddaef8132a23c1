"""A stage of the phase `people` that measures photos as a whole and rules on them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.errors import PersonaError, one_line
from curation.ledger import ERROR, NOT_MEASURED, Check, Outcome, failed, is_kept, judged, rule_rows
from curation.people.chain import ChainStage
from curation.stage import set_columns


class PhotoStage(ChainStage):
    """Measures every photo that is still in, once, and rules on it by its thresholds.

    `fills` are columns of one value a photo, the first of them null where a photo was never measured, and the
    string column `NAME_error`. A subclass writes `measure_photo`; and `checks` where its thresholds name no
    columns.
    """

    unit: ClassVar[str] = "photo"

    def measure_photo(self, photo: np.ndarray) -> dict[str, Any]:
        """{column: value} of a photo, uint8 [height, width, 3], RGB, upright. May raise anything."""
        raise NotImplementedError

    def checks(self, row: dict[str, Any]) -> list[Check]:
        """The numbers of a measured photo beside their settings."""
        return [self.check(each.reason, round(row[each.column], 4)) for each in self.thresholds]

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos still in that were never measured."""
        return [
            still_in and self._unknown(row) == _NEVER
            for row, still_in in zip(self._rows(table), is_kept(table), strict=True)
        ]

    def measure(self, table: pa.Table) -> pa.Table:
        """Measures photo by photo; an error is that photo's own."""
        rows = table.to_pylist()
        self.calls.asked(self.name, [row["photo_id"] for row in rows])
        return set_columns(table, self.fills, [self._measured(row) for row in rows])

    def _measured(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.measure_photo(self.pixels.rgb(row))
        except PersonaError:
            raise
        except Exception as error:  # models raise anything; the photo is failed, the run goes on
            return {self.error_column: one_line(error)}

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every photo still in; one that could not be measured is failed, never let in."""
        outcomes: Sequence[Outcome | None] = [
            (self._unknown(row) or judged(self.checks(row))) if still_in else None
            for row, still_in in zip(self._rows(table), is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rows(self, table: pa.Table) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = table.select(self.fills.names).to_pylist()
        return rows

    def _unknown(self, row: dict[str, Any]) -> Outcome | None:
        if row[self.error_column] is not None:
            return failed(ERROR, row[self.error_column])
        return _NEVER if row[self.fills.names[0]] is None else None


_NEVER = failed(NOT_MEASURED)
