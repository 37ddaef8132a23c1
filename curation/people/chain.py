"""Bases of the stages of the phase `people`: what they share, how one is made, how rows are ruled on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation.backends import OnFirstUse
from curation.declared import BROKE_DOWN, NEVER_MEASURED, Reason, Threshold
from curation.ledger import ERROR, NOT_MEASURED, Check, Outcome, failed, is_kept, judged, rule_rows
from curation.meters import CallCounter
from curation.models import Models, used_models
from curation.photos.decode import VERSION
from curation.photos.pixels import Pixels
from curation.settings.base import Settings, chosen_backends
from curation.settings.people import PeopleSettings
from curation.stage import Stage


@dataclass(frozen=True)
class ChainContext:
    """What the stages of one chain share: decoded photos, the count of calls, whom to measure, weights."""

    pixels: Pixels
    calls: CallCounter
    measure: Literal["kept", "all"] = "kept"
    models: Mapping[str, Any] = field(default_factory=dict)
    _backends: dict[str, OnFirstUse] = field(default_factory=dict)

    def backend(self, kind: str, chosen: Settings) -> OnFirstUse:
        """The backend that `chosen` names, loaded when it is first asked; stages that choose it share it."""
        key = f"{kind} {chosen.model_dump_json()}"
        return self._backends.setdefault(key, OnFirstUse(kind, chosen, dict(self.models)))


class ChainStage(Stage):
    """Base of the stages of the phase `people`.

    `backends` has, by the name of the field, each backend that the settings choose.
    """

    version: ClassVar[int] = VERSION

    def __init__(self, settings: Settings, chain: ChainContext, models: Models | None = None) -> None:
        """`models`: the weights that it asks; None: those that its settings name."""
        used = used_models(settings, chain.models) if models is None else models
        super().__init__(settings, tuple(used.values()))
        self.chain = chain
        self.pixels = chain.pixels
        self.calls = chain.calls
        self.backends: dict[str, Any] = {
            path: chain.backend(kind, chosen) for path, kind, chosen in chosen_backends(settings)
        }

    @property
    def error_column(self) -> str:
        """The column of `fills` that says why something could not be measured."""
        return f"{self.name}_error"

    @classmethod
    def all_reasons(cls) -> Iterator[Threshold | Reason]:
        """Also those of measuring."""
        yield from super().all_reasons()
        if len(cls.fills):
            yield from (BROKE_DOWN, NEVER_MEASURED)

    @classmethod
    def settings_in(cls, people: PeopleSettings) -> Settings | None:
        """Its part of the phase's settings; None where the pipeline does not set that part."""
        if cls.settings_type is None:
            raise TypeError(f"stage {cls.name}: sets no settings_type")
        sections = (getattr(people, name) for name in type(people).model_fields)
        return next((part for part in sections if type(part) is cls.settings_type), None)

    @classmethod
    def of(cls, people: PeopleSettings, chain: ChainContext) -> "ChainStage | None":
        """The stage with its part of the phase's settings; None where the pipeline does not set that part."""
        settings = cls.settings_in(people)
        return None if settings is None else cls(settings, chain)


# Columns that are turned into objects for no ruling, or for no measurement either.
_NOT_SEEN = ("decisions", "metadata")
_NOT_RULED_BY = (*_NOT_SEEN, "mask", "labels", "appearance")


class RowStage(ChainStage):
    """Base of the stages that measure rows, of photos or of people, and rule on each by its own numbers.

    The first column of `fills` is null where a row was never measured; a stage without `fills` rules on all.
    """

    def checks(self, row: dict[str, Any]) -> list[Check]:
        """The numbers of a measured row beside their settings; it has no decisions, maps and descriptors."""
        return [self.check(each.reason, round(row[each.column], 4)) for each in self.thresholds]

    def ruling(self, row: dict[str, Any]) -> Outcome:
        """What is ruled on a measured row, as `checks` has it."""
        return judged(self.checks(row))

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every row still in; one that could not be measured is failed, never let in."""
        still_in = is_kept(table)
        rows = table.filter(pa.array(still_in, pa.bool_()))
        columns = [name for name in rows.column_names if name not in _NOT_RULED_BY]
        ruled = map(self._ruled, rows.select(columns).to_pylist(), self.unmeasured(rows))
        return rule_rows(table, self.stamp, [next(ruled) if kept else None for kept in still_in])

    def _ruled(self, row: dict[str, Any], never: bool) -> Outcome:
        error = row[self.error_column] if len(self.fills) else None
        if error is not None:
            return failed(ERROR, error)
        return failed(NOT_MEASURED) if never else self.ruling(row)

    def unmeasured(self, table: pa.Table) -> list[bool]:
        """Per row: whether nobody ever tried to measure it."""
        if not len(self.fills):
            return [False] * table.num_rows
        nothing, no_error = (table[name].is_null() for name in (self.fills.names[0], self.error_column))
        return list(pc.and_(nothing, no_error).to_pylist())

    def seen(self, table: pa.Table) -> pa.Table:
        """The columns that a measurement sees."""
        return table.drop_columns([name for name in _NOT_SEEN if name in table.column_names])
