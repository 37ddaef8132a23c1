"""A stage of the phase `people` that measures people, a row each, and rules on them."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import put_rows
from curation.errors import PersonaError, one_line
from curation.ledger import KEPT
from curation.people.chain import RowStage

Person = dict[str, Any]
"""A row of the chain: a person, what earlier stages measured of it, and its photo's `OF_PHOTO`."""
People = list[Person]
Measured = list[dict[str, Any]]
"""{column: value} of each person."""


class PersonStage(RowStage):
    """Measures people, those of a photo together, and rules on each by its thresholds.

    `fills` are columns of one value a person, the first of them null where one was never measured, and the
    string column `NAME_error`. A subclass writes `measure_people`; and `checks`, or `ruling`, where its
    thresholds name no columns.
    """

    unit: ClassVar[str] = "person"
    version: ClassVar[int] = RowStage.version + 1  # a row a person
    requires: ClassVar[str | None] = None
    """A column of an earlier stage: people for whom it is null are not measured."""

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """The columns of each of the wanted people of a photo. May raise anything.

        photo     uint8 [height, width, 3], RGB, upright
        everyone  all people of the photo in their order, also those ruled out; the wanted are among them
        """
        raise NotImplementedError

    def missing(self, table: pa.Table) -> list[bool]:
        """People who were never measured and are to be: still in, or all where the pipeline measures all, and
        not where an earlier stage broke down or found nothing."""
        if not len(self.fills):
            return [False] * table.num_rows
        wanted = np.array(self.unmeasured(table), bool)
        if self.chain.measure != "all":
            wanted &= np.array(pc.equal(table["verdict"], KEPT), bool)
        for name in self.needs:
            if f"{name}_error" in table.column_names:
                wanted &= np.array(table[f"{name}_error"].is_null(), bool)
        if self.requires:
            wanted &= np.array(table[self.requires].is_valid(), bool)
        found: list[bool] = wanted.tolist()
        return found

    def complete(self, table: pa.Table, missing: Sequence[bool]) -> pa.Table:
        """Measures with the others of each photo in sight."""
        return self.measure(table)

    def measure(self, table: pa.Table) -> pa.Table:
        """Measures who is missing, photo by photo; what is known of the others stays. An error is that of the
        people who were to be measured on the photo."""
        missing = self.missing(table)
        everyone: People = self.seen(table).to_pylist()
        places: list[int] = []
        found: Measured = []
        for _, photo in groupby(range(len(everyone)), lambda place: everyone[place]["source_key"]):
            of_photo = list(photo)
            wanted = [place for place in of_photo if missing[place]]
            if wanted:
                places += wanted
                found += self._measured([everyone[i] for i in wanted], [everyone[i] for i in of_photo])
        return put_rows(table, places, pa.Table.from_pylist(found, schema=self.fills))

    def _measured(self, wanted: People, everyone: People) -> Measured:
        self.calls.asked(self.name, [person["person_id"] for person in wanted])
        try:
            found = self.measure_people(self.pixels.rgb(everyone[0]), wanted, everyone)
            return [columns for _, columns in zip(wanted, found, strict=True)]
        except PersonaError:
            raise
        except Exception as error:  # models raise anything; these people are failed, the run goes on
            return [{self.error_column: one_line(error)}] * len(wanted)
