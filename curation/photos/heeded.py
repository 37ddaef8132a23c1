"""Which wishes a run heeded: the tombstones it obeyed, and which lines of its opt-out list named a photo.

A list whose lines miss is worse than none: everybody takes the wishes for obeyed. So a run says how many of
its lines matched. It keeps the numbers of the others, never what they say: they are about people.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from curation.forgetting.address import COLUMNS as ADDRESSES
from curation.forgetting.tombstones import stores_of
from curation.fragments import Fragment, about
from curation.ledger import is_kept
from curation.photos.opt_out import OPTED_OUT, OptOuts
from curation.settings.photos import ScreenSettings
from curation.storage import exists, join, read_bytes, read_table, write_bytes

FILE = "_opt_out.json"  # in photos/, which stays a dataset of Parquet files: readers pass over _
_TOLD = 10_000  # numbers of lines that are kept
_SHOWN = 5  # … and that are printed
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


def heed(folder: str, fragments: list[Fragment], settings: ScreenSettings) -> Heeded | None:
    """Counts the lines that named a photo; None where there is no list. `folder` holds screened photos.

    Photos that could not be read count too: they are there.
    """
    if settings.opt_out is None:
        return None
    listed = OptOuts(settings)
    matched: set[int] = set()
    for fragment in fragments if listed else []:
        path = join(folder, fragment.name)
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


def write_heeded(run: str, heeded: Heeded | None) -> None:
    """Keeps it in the run folder."""
    said = None if heeded is None else heeded.to_json()
    write_bytes(join(run, "photos", FILE), json.dumps(said).encode())


def read_heeded(run: str) -> dict[str, Any] | None:
    """What `write_heeded` kept; None where the run has no list, or has not come so far."""
    path = join(run, "photos", FILE)
    return json.loads(read_bytes(path)) if exists(path) else None


def obeyed_tombstones(run: str, settings: ScreenSettings) -> list[dict[str, Any]]:
    """{store, lines} of each store of the forgotten that a run obeys, also of those that are empty."""
    stores = stores_of(run, settings.forgotten)
    return [{"store": store.folder, "lines": len(store.read())} for store in stores]


def tombstone_lines(stores: list[dict[str, Any]]) -> list[str]:
    """For people: which tombstones are obeyed, or that there are none."""
    lines = [f"forgotten: {s['lines']} tombstones of {s['store']} obeyed" for s in stores if s["lines"]]
    places = ", ".join(store["store"] for store in stores)
    return lines or ([f"forgotten: no tombstones in {places}"] if places else [])


def heeded_lines(said: dict[str, Any] | None) -> list[str]:
    """For people: the counts, and which lines of their list matched nothing."""
    if said is None:
        return []
    lines = [f"opt-out list: {said['lines']} lines, {said['matched']} matched"]
    missed = said["missed"][:_SHOWN]
    lines += [f"  line {entry['line']} ({entry['kind']}) matched nothing" for entry in missed]
    more = said["lines"] - said["matched"] - len(missed)
    return [*lines, f"  {more} more matched nothing: photos/{FILE} has their numbers"] if more else lines
