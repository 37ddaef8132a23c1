"""A stage of the phase `people` that measures photos as a whole and rules on them."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.errors import PersonaError, one_line
from curation.ledger import is_kept
from curation.people.chain import RowStage
from curation.stage import set_columns


class PhotoStage(RowStage):
    """Measures every photo that is still in, once, and rules on it by its thresholds.

    `fills` are columns of one value a photo, the first of them null where a photo was never measured, and the
    string column `NAME_error`. A subclass writes `measure_photo`; and `checks` where its thresholds name no
    columns.
    """

    unit: ClassVar[str] = "photo"

    def measure_photo(self, photo: np.ndarray) -> dict[str, Any]:
        """{column: value} of a photo, uint8 [height, width, 3], RGB, upright. May raise anything."""
        raise NotImplementedError

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos still in that were never measured."""
        return [
            still_in and never for still_in, never in zip(is_kept(table), self.unmeasured(table), strict=True)
        ]

    def measure(self, table: pa.Table) -> pa.Table:
        """Measures photo by photo; an error is that photo's own."""
        rows = self.seen(table).to_pylist()
        self.calls.asked(self.name, [row["photo_id"] for row in rows])
        return set_columns(table, self.fills, [self._measured(row) for row in rows])

    def _measured(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.measure_photo(self.pixels.rgb(row))
        except PersonaError:
            raise
        except Exception as error:  # models raise anything; the photo is failed, the run goes on
            return {self.error_column: one_line(error)}
