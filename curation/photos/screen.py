"""Stage `screen`: format, size, limits, licence, consent, opt-out; thresholds on what `read` stored."""

from typing import Any, ClassVar

import pyarrow as pa

from curation.errors import ConfigError
from curation.ledger import Check, Outcome, Verdict, at_least, at_most, is_kept, judged, rule_rows
from curation.photos.read import FORGOTTEN
from curation.settings.photos import ScreenSettings
from curation.stage import Stage
from curation.storage import read_bytes
from shards.tombstones import tombstone

_REJECTED: Verdict = "rejected"
_YES = frozenset(("yes", "y", "true", "1", "granted", "given"))


class OptOuts:
    """A list of photos that must not be used: sha256 of the bytes, perceptual hashes, or the tombstones
    that `persona shards forget` leaves (those of photos; lines about identities and keys are passed over)."""

    def __init__(self, file: str | None) -> None:
        self.photo_ids: set[str] = set()
        self.hashes: list[int] = []
        self.tombstones: set[str] = set()
        if file is None:
            return
        try:
            lines = read_bytes(file).decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"photos.screen.opt_out: {file}: cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            kind, _, digits = line.split("#", 1)[0].strip().lower().partition(":")
            if not kind and not digits:
                continue
            if kind == "sha256" and _is_hex(digits, 64):
                self.photo_ids.add(digits)
            elif kind == "phash" and _is_hex(digits, 16):
                self.hashes.append(int(digits, 16))
            elif kind.startswith("forgotten-") and _is_hex(digits, 64):
                self.tombstones.add(f"{kind}:{digits}")
            else:
                raise ConfigError(
                    f"photos.screen.opt_out: {file}:{number}: {line.strip()!r} is neither "
                    "sha256:<64 hex digits> nor phash:<16 hex digits>, nor a tombstone"
                )

    def distance(self, photo_id: str, phash: int | None) -> int | None:
        """Bits between a photo and the nearest entry; 0 for its sha256; None for an empty list."""
        if photo_id in self.photo_ids:
            return 0
        if self.tombstones and tombstone("photo", photo_id) in self.tombstones:
            return 0
        if phash is None or not self.hashes:
            return None
        return min((phash ^ listed).bit_count() for listed in self.hashes)


class Screen(Stage):
    """Rejects what may not be used. The first check that fails gives the reason."""

    name: ClassVar[str] = "screen"
    unit: ClassVar[str] = "photo"

    def __init__(self, settings: ScreenSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._opt_outs = OptOuts(settings.opt_out)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every row that was read."""
        names = "photo_id n_bytes format width height frames phash undecoded licence consent"
        rows = table.select(names.split()).to_pylist()
        outcomes = [
            self._rule(row) if still_in else None for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        wanted = self._settings
        if row["undecoded"] == FORGOTTEN:
            return Outcome(_REJECTED, FORGOTTEN)
        max_bytes = int(wanted.max_file_mib * 2**20)
        if row["undecoded"] == "too_many_bytes" or row["n_bytes"] > max_bytes:
            return judged([at_most("too_many_bytes", row["n_bytes"], max_bytes)])
        if row["format"] not in wanted.formats:
            return Outcome(_REJECTED, "format", detail=f"the file is {row['format']}")
        pixels = row["width"] * row["height"]
        if pixels > wanted.max_pixels:
            return judged([at_most("too_many_pixels", pixels, wanted.max_pixels)])
        distance = self._opt_outs.distance(row["photo_id"], row["phash"])
        if distance is not None and distance <= wanted.opt_out_max_bits:
            return Outcome(_REJECTED, "opted_out", distance, wanted.opt_out_max_bits)
        if wanted.licences is not None and row["licence"] not in wanted.licences:
            return Outcome(_REJECTED, "licence", detail=f"licence {row['licence'] or 'not stated'}")
        if wanted.consent and str(row["consent"] or "").strip().lower() not in _YES:
            return Outcome(_REJECTED, "no_consent", detail=f"consent {row['consent'] or 'not stated'}")
        side = min(row["width"], row["height"])
        return judged(
            [
                Check("animated", row["frames"], 1, wanted.animated or row["frames"] == 1),
                at_least("too_small", side, wanted.min_side_px),
                at_most("too_many_pixels", pixels, wanted.max_pixels),
            ]
        )


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(letter in "0123456789abcdef" for letter in text)
