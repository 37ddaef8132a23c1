"""A list of photos that must not be used, as people or publishers hand it in."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.excluded.address import addresses_of, is_web, normal, without_comment
from curation.settings.photos import ScreenSettings
from curation.sources.parquet import records_in
from curation.storage import read_bytes
from shards.format.dataset_tombstones import tombstone
from shards.format.members import photo_id_of

_AGAIN = re.compile(r"~\d+(?=/|$)")
OPTED_OUT = "opted_out"  # reason, and value of the column `undecoded`


class OptOuts:
    """Lines sha256:HEX of the bytes, phash:HEX, url:URL of a photo or its page, id:NAME (the source_key or
    file name that the collection gives it), or the tombstones that `persona shards forget` leaves (those of
    photos; lines about identities and keys are passed over). `#` begins a comment, in lines of url and id
    only after a blank. `lines` are the numbers of the lines that may name a photo, with their kinds.

    Raises ConfigError with the line that is none of these.
    """

    def __init__(self, settings: ScreenSettings) -> None:
        self.lines: dict[int, str] = {}
        self._max_bits = settings.opt_out_max_bits
        self._with_query = settings.address_query
        # Of each kind: what it names -> the lines that name it.
        self._named: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._pictures = np.zeros(0, np.uint64)
        file = settings.opt_out
        if file is None:
            return
        try:
            lines = read_bytes(file).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"photos.screen.opt_out: {file}: cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if not self._add(number, line.strip()):
                raise ConfigError(
                    f"photos.screen.opt_out: {file}:{number}: {line.strip()[:80]!r} is none of "
                    "sha256:<64 hex digits>, phash:<16 hex digits>, url:<address>, id:<name>, a tombstone"
                )
        self._pictures = np.array(list(self._named["phash"]), np.uint64)

    def _add(self, number: int, line: str) -> bool:
        if not line or line.startswith("#"):
            return True
        kind, _, value = line.partition(":")
        kind = kind.strip().lower()
        if kind in ("url", "id"):
            value = without_comment(value)
            if kind == "url" and is_web(value):
                return self._put(number, kind, normal(value, self._with_query))
            return kind == "id" and bool(value) and self._put(number, kind, _folded(value))
        digits = value.split("#", 1)[0].strip().lower()
        if kind == "sha256" and _is_hex(digits, 64):
            return self._put(number, kind, digits)
        if kind == "phash" and _is_hex(digits, 16):
            return self._put(number, kind, int(digits, 16))
        if kind == "forgotten-photo" and _is_hex(digits, 64):
            return self._put(number, kind, f"{kind}:{digits}")
        return kind.startswith("forgotten-") and _is_hex(digits, 64)

    def _put(self, number: int, kind: str, value: Any) -> bool:
        self.lines[number] = kind
        self._named[kind][value].append(number)
        return True

    def __bool__(self) -> bool:
        return bool(self.lines)

    def naming(self, row: Mapping[str, Any]) -> set[int]:
        """The lines that name a photo by what the collection says of it, before it is read."""
        found: set[int] = set()
        if names := self._named.get("id"):
            given = (row.get(column) for column in ("source_key", "file_name"))
            found.update(*(names.get(_folded(name), ()) for name in given if name is not None))
        if addresses := self._named.get("url"):
            asked = {normal(address, self._with_query) for address in addresses_of(row)}
            found.update(*(addresses.get(address, ()) for address in asked))
        return found | self._by_bytes(collected_as(row.get("metadata")))

    def showing(self, photo_id: str | None, phash: int | None) -> tuple[set[int], int | None]:
        """(the lines that name a photo by its bytes or its picture, bits to the nearest picture or None)."""
        found = self._by_bytes(photo_id)
        bits: int | None = 0 if found else None
        if phash is not None and len(self._pictures):
            apart = np.bitwise_count(self._pictures ^ np.uint64(phash))
            bits = min(int(apart.min()), 64 if bits is None else bits)
            for listed in self._pictures[apart <= self._max_bits].tolist():
                found.update(self._named["phash"][listed])
        return found, bits

    def _by_bytes(self, photo_id: str | None) -> set[int]:
        """The lines that name a photo by the sha256 of its bytes."""
        if photo_id is None:
            return set()
        found = set(self._named.get("sha256", {}).get(photo_id, ()))
        if forgotten := self._named.get("forgotten-photo"):
            found.update(forgotten.get(tombstone("photo", photo_id), ()))
        return found

    def covering(self, row: Mapping[str, Any]) -> set[int]:
        """All lines that name a photo in any way, of a row as the stage `read` leaves it."""
        return self.naming(row) | self.showing(row.get("photo_id"), row.get("phash"))[0]


def collected_as(metadata: str | None) -> str | None:
    """The photo_id that a record of ours states: that of the bytes as they were collected, before they were
    stripped or made smaller for a shard. Who opted out or was forgotten is named by that one."""
    if metadata is None or "photo_id" not in metadata:
        return None
    return next(filter(None, map(photo_id_of, records_in(metadata))), None)


def _folded(name: str) -> str:
    """A name in small letters, with accents and letters as one, and without the numbers by which copies of
    one name are told apart (`a.tar~2/k.jpg`, `a.tar/k.jpg~2`): somebody who names it means them all."""
    return _AGAIN.sub("", unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()))


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(letter in "0123456789abcdef" for letter in text)
