"""What the stages of the phase `people` share: columns with one entry a person, one decode a photo."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curation.call_counter import CallCounter
from curation.errors import PersonaError
from curation.ledger import KEPT, Outcome, failed, is_kept, rule_people
from curation.models import Model
from curation.photos.pixels import Pixels
from curation.settings.base import Settings
from curation.stage import Stage, set_columns


class PersonStage(Stage):
    """A stage that measures people and rules on them.

    Its columns in `fills` are lists parallel to `person_ids`, null where a person was not measured,
    and one string column `NAME_error` for a photo on which measuring failed.
    """

    unit: ClassVar[str] = "person"

    def __init__(
        self,
        settings: Settings,
        models: Sequence[Model],
        pixels: Pixels,
        calls: CallCounter,
        measure_whom: Literal["kept", "all"],
    ) -> None:
        super().__init__(settings, models)
        self.pixels = pixels
        self.calls = calls
        self._all = measure_whom == "all"

    @property
    def error_column(self) -> str:
        """Where the reason is kept when a photo could not be measured."""
        return f"{self.name}_error"

    def wanted(self, row: dict[str, Any]) -> list[int]:
        """The people of a photo that are to be measured."""
        verdicts = row["person_verdicts"] or []
        return [i for i, verdict in enumerate(verdicts) if self._all or verdict == KEPT]

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos with a wanted person that was never measured."""
        first = self.fills.names[0]
        rows = table.select(["person_verdicts", first, self.error_column]).to_pylist()
        return [
            still_in
            and row[self.error_column] is None
            and any(row[first] is None or row[first][i] is None for i in self.wanted(row))
            for row, still_in in zip(rows, is_kept(table), strict=True)
        ]

    def measure(self, table: pa.Table) -> pa.Table:
        """Measures the wanted people photo by photo; an error is that photo's own."""
        if not len(self.fills):
            return table
        results = []
        for row in table.to_pylist():
            wanted = self.wanted(row)
            people = len(row["person_ids"])
            self.calls.asked(self.name, [row["person_ids"][i] for i in wanted])
            columns: dict[str, Any] = {
                name: [None] * people for name in self.fills.names if name != self.error_column
            }
            try:
                found = self.measure_people(row, wanted) if wanted else []
                for i, measured in zip(wanted, found, strict=True):
                    for name, value in measured.items():
                        columns[name][i] = value
            except PersonaError:
                raise
            except Exception as error:  # models raise anything; the photo is failed, the run goes on
                columns = {self.error_column: one_line(error)}
            results.append(columns)
        return set_columns(table, self.fills, results)

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """One {column: value} for each wanted person of a photo."""
        raise NotImplementedError

    def rule(self, table: pa.Table, ruling: Callable[[dict[str, Any], int], Outcome]) -> pa.Table:
        """Rules on every person still in; a photo with an error fails its people."""
        outcomes: list[list[Outcome | None]] = []
        measured = self.fills.names[0] if len(self.fills) else None
        skip = {"person_decisions", "decisions", "metadata"}
        columns = [name for name in table.column_names if name not in skip]
        for row in table.select(columns).to_pylist():
            ruled: list[Outcome | None] = []
            for i, verdict in enumerate(row["person_verdicts"]):
                if verdict != KEPT:
                    ruled.append(None)
                elif measured is not None and row[self.error_column] is not None:
                    ruled.append(failed("error", row[self.error_column]))
                elif measured is not None and (row[measured] is None or row[measured][i] is None):
                    ruled.append(failed("not_measured"))
                else:
                    ruled.append(ruling(row, i))
            outcomes.append(ruled)
        return rule_people(table, self.stamp, outcomes)


def one_line(error: Exception) -> str:
    """An exception as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
