"""Which wishes a run heeded: the tombstones it obeyed, and which lines of its opt-out list named a photo.

A list whose lines miss is worse than none: everybody takes the wishes for obeyed. So a run says how many of
its lines matched. It keeps the numbers of the others, never what they say: they are about people.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from curation.excluded.address import COLUMNS as ADDRESSES
from curation.excluded.opt_out import OPTED_OUT, OptOuts
from curation.excluded.tombstone_store import stores_of
from curation.fragments import Fragment, about
from curation.ledger import is_kept
from curation.run_tables import PhaseTable
from curation.settings.photos import ScreenSettings
from curation.storage import read_bytes, read_table

_TOLD = 10_000  # numbers of lines that are kept
_COLUMNS = ("source_key", "file_name", *ADDRESSES, "photo_id", "phash", "verdict")


@dataclass(frozen=True)
class Heeded:
    """lines, matched: how many may name a photo, and did; missed: (number, kind) of lines that did not.

    `sha256` is that of the list. `missed` holds the first 10,000.
    """

    sha256: str
    lines: int
    matched: int
    missed: tuple[tuple[int, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "sha256": self.sha256,
            "lines": self.lines,
            "matched": self.matched,
            "missed": [{"line": number, "kind": kind} for number, kind in self.missed],
        }


def heed(screened: PhaseTable, fragments: list[Fragment], settings: ScreenSettings) -> Heeded | None:
    """Counts the lines that named a photo; None where there is no list.

    Photos that could not be read count too: they are there.
    """
    if settings.opt_out is None:
        return None
    listed = OptOuts(settings)
    matched: set[int] = set()
    for fragment in fragments if listed else []:
        path = screened.path(fragment)
        if _may_hold_some(about(path)["counts"]):
            table = read_table(path, list(_COLUMNS))
            for row, went_on in zip(table.to_pylist(), is_kept(table), strict=True):
                if not went_on:
                    matched |= listed.covering(row)
    missed = sorted(listed.lines.items() - {(number, listed.lines[number]) for number in matched})
    sha256 = hashlib.sha256(read_bytes(settings.opt_out)).hexdigest()
    return Heeded(sha256, len(listed.lines), len(matched), tuple(missed[:_TOLD]))


def _may_hold_some(counts: dict[str, Any]) -> bool:
    """Whether a fragment has photos that opted out, or that nobody could read or download."""
    opted_out = counts.get("screen", {}).get("reasons", {}).get(OPTED_OUT, 0)
    read = counts.get("read", {})
    return bool(opted_out or read.get("failed", 0) or read.get("rejected", 0))


def obeyed_tombstones(run: str, settings: ScreenSettings) -> list[dict[str, Any]]:
    """{store, lines} of each store of the forgotten that a run obeys, also of those that are empty."""
    stores = stores_of(run, settings.forgotten)
    return [{"store": store.folder, "lines": len(store.read())} for store in stores]
