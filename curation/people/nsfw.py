"""Stage `nsfw`: what a classifier says of the whole photo, before anybody on it is looked for."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from curation.errors import PersonaError, one_line
from curation.ledger import ERROR, NOT_MEASURED, Outcome, at_most, failed, is_kept, judged, rule_rows
from curation.models import Model
from curation.people.person_stage import ChainContext
from curation.people.protocols import PictureClassifier
from curation.photos.decode import VERSION
from curation.settings.filters import NsfwSettings
from curation.stage import Stage, set_columns


class Nsfw(Stage):
    """Fills `nsfw_score` (0 to 1); a photo that cannot be scored is failed, never let in."""

    name: ClassVar[str] = "nsfw"
    unit: ClassVar[str] = "photo"
    version: ClassVar[int] = VERSION
    fills: ClassVar[pa.Schema] = pa.schema([("nsfw_score", pa.float32()), ("nsfw_error", pa.string())])

    def __init__(
        self,
        settings: NsfwSettings,
        models: Sequence[Model],
        classifier: PictureClassifier,
        chain: ChainContext,
    ) -> None:
        super().__init__(settings, models)
        self._max_score = settings.max_score
        self._classifier = classifier
        self._chain = chain

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos still in that were never scored."""
        rows = table.select(self.fills.names).to_pylist()
        return [
            still_in and row["nsfw_score"] is None and row["nsfw_error"] is None
            for row, still_in in zip(rows, is_kept(table), strict=True)
        ]

    def measure(self, table: pa.Table) -> pa.Table:
        """Scores photo by photo; an error is that photo's own."""
        rows = table.to_pylist()
        self._chain.calls.asked(self.name, [row["photo_id"] for row in rows])
        return set_columns(table, self.fills, [self._score(row) for row in rows])

    def _score(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"nsfw_score": float(self._classifier.score([self._chain.pixels.rgb(row)])[0])}
        except PersonaError:
            raise
        except Exception as error:  # models raise anything; the photo is failed, the run goes on
            return {"nsfw_error": one_line(error)}

    def decide(self, table: pa.Table) -> pa.Table:
        """Rejects photos above the threshold."""
        outcomes: list[Outcome | None] = []
        for row, still_in in zip(table.select(self.fills.names).to_pylist(), is_kept(table), strict=True):
            if not still_in:
                outcomes.append(None)
            elif row["nsfw_error"] is not None:
                outcomes.append(failed(ERROR, row["nsfw_error"]))
            elif row["nsfw_score"] is None:
                outcomes.append(failed(NOT_MEASURED))
            else:
                outcomes.append(judged([at_most("nsfw", round(row["nsfw_score"], 4), self._max_score)]))
        return rule_rows(table, self.stamp, outcomes)
