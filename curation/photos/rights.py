"""Stage `rights`: what a photo says of itself is obeyed; decisions on what `read` stored."""

import json
from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Reason
from curation.ledger import REJECTED, Outcome, is_kept, kept, rule_rows
from curation.photos.stated_rights import SYNTHETIC, reserving_header
from curation.settings.photos import RightsSettings
from curation.stage import Stage


class Rights(Stage):
    """Rejects photos that reserve mining, that no camera made, and whose Content Credentials are broken."""

    name: ClassVar[str] = "rights"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = RightsSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("mining_reserved", "it, or its server, reserves mining or training", "photos.rights.mining"),
        Reason("synthetic", "it says that a model made it, or a part of it", "photos.rights.synthetic"),
        Reason("broken_credentials", "its Content Credentials cannot be trusted", "photos.rights.broken"),
    )

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every photo still in."""
        rows = table.select(["source_type", "mining", "mining_reserved", "credentials_broken", "metadata"])
        outcomes = [
            self._rule(row) if still_in else None
            for row, still_in in zip(rows.to_pylist(), is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        wanted: RightsSettings = self.settings
        if wanted.mining:
            if row["mining_reserved"]:
                return Outcome(REJECTED, "mining_reserved", detail=row["mining"])
            header = reserving_header(_record(row["metadata"]))
            if header is not None:
                return Outcome(REJECTED, "mining_reserved", detail=header)
        if wanted.synthetic and row["source_type"] in SYNTHETIC:
            return Outcome(REJECTED, "synthetic", detail=row["source_type"])
        if wanted.broken and row["credentials_broken"] is not None:
            return Outcome(REJECTED, "broken_credentials", detail=row["credentials_broken"])
        return kept()


def _record(metadata: str | None) -> Any:
    """The record beside a photo, where it may hold headers."""
    folded = (metadata or "").lower().replace("_", "-")
    return json.loads(metadata or "") if "robots" in folded or "tdm-res" in folded else None
