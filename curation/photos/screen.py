"""Stage `screen`: format, size, limits, licence, consent, opt-out; thresholds on what `read` stored."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from curation.declared import Number, Reason, Threshold
from curation.excluded.address import COLUMNS
from curation.excluded.opt_out import OPTED_OUT, OptOuts
from curation.ledger import REJECTED, Check, Outcome, at_most, is_kept, judged, rule_rows
from curation.photos.read import FORGOTTEN
from curation.settings.photos import ScreenSettings
from curation.stage import Stage

_YES = frozenset(("yes", "y", "true", "1", "granted", "given"))


class Screen(Stage):
    """Rejects what may not be used. The first check that fails gives the reason."""

    name: ClassVar[str] = "screen"
    version: ClassVar[int] = 3  # opt-outs come first, and find addresses wherever a record has them
    unit: ClassVar[str] = "photo"

    settings_type: ClassVar[Any] = ScreenSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason(FORGOTTEN, "a tombstone names the photo or its picture", "photos.screen.forgotten"),
        Reason(OPTED_OUT, "the list of opt-outs names the photo or its picture", "photos.screen.opt_out"),
        Reason("format", "the file is of another format", "photos.screen.formats"),
        Reason("licence", "its licence is not on the list", "photos.screen.licences"),
        Reason("no_consent", "its record does not say that there is consent", "photos.screen.consent"),
        Reason("animated", "the file has several frames", "photos.screen.animated"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold(
            "too_many_bytes",
            "photos.screen.max_file_mib",
            "at most",
            "size of the file",
            per=2**20,
            unit="MiB",
        ),
        Threshold("too_many_pixels", "photos.screen.max_pixels", "at most", "width × height", unit="px"),
        Threshold("too_small", "photos.screen.min_side_px", "at least", "shorter side", unit="px"),
    )
    numbers: ClassVar[Mapping[str, Number]] = {
        "animated": Number("at most", "frames"),
        OPTED_OUT: Number("above", "bits from a photo of the list"),
    }

    def __init__(self, settings: ScreenSettings) -> None:
        super().__init__(settings)
        self.opt_outs = OptOuts(settings)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every row that was read."""
        names = "photo_id n_bytes format width height frames phash undecoded licence consent"
        rows = table.select([*names.split(), "source_key", "file_name", *COLUMNS]).to_pylist()
        outcomes = [
            self._rule(row) if still_in else None for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        wanted: ScreenSettings = self.settings
        if row["undecoded"] == FORGOTTEN:
            return Outcome(REJECTED, FORGOTTEN)
        if row["undecoded"] == OPTED_OUT or self.opt_outs.naming(row):
            return Outcome(REJECTED, OPTED_OUT)
        listed, bits = self.opt_outs.showing(row["photo_id"], row["phash"])
        if listed:
            return Outcome(REJECTED, OPTED_OUT, bits, wanted.opt_out_max_bits)
        max_bytes = int(wanted.max_file_mib * 2**20)
        if row["undecoded"] == "too_many_bytes" or row["n_bytes"] > max_bytes:
            return judged([at_most("too_many_bytes", row["n_bytes"], max_bytes)])
        if row["format"] not in wanted.formats:
            return Outcome(REJECTED, "format", detail=f"the file is {row['format']}")
        pixels = row["width"] * row["height"]
        if pixels > wanted.max_pixels:
            return judged([self.check("too_many_pixels", pixels)])
        if wanted.licences is not None and row["licence"] not in wanted.licences:
            return Outcome(REJECTED, "licence", detail=f"licence {row['licence'] or 'not stated'}")
        if wanted.consent and str(row["consent"] or "").strip().lower() not in _YES:
            return Outcome(REJECTED, "no_consent", detail=f"consent {row['consent'] or 'not stated'}")
        side = min(row["width"], row["height"])
        return judged(
            [
                Check("animated", row["frames"], 1, wanted.animated or row["frames"] == 1),
                self.check("too_small", side),
                self.check("too_many_pixels", pixels),
            ]
        )
