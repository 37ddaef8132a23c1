"""A list of photos that must not be used, as people or publishers hand it in."""

from collections.abc import Mapping
from typing import Any

from curation.errors import ConfigError
from curation.forgetting.tombstones import URL_COLUMNS, is_web, plain_url
from curation.storage import read_bytes
from shards.tombstones import tombstone

OPTED_OUT = "opted_out"  # reason, and value of the column `undecoded`


class OptOuts:
    """Lines sha256:HEX of the bytes, phash:HEX, url:URL of a photo or its page, id:NAME (the source_key or
    file name that the collection gives it), or the tombstones that `persona shards forget` leaves (those of
    photos; lines about identities and keys are passed over). `#` begins a comment, in lines of url and id
    only after a blank.

    Raises ConfigError with the line that is none of these.
    """

    def __init__(self, file: str | None) -> None:
        self.photo_ids: set[str] = set()
        self.hashes: list[int] = []
        self.tombstones: set[str] = set()
        self._ids: set[str] = set()
        self._urls: set[str] = set()
        if file is None:
            return
        try:
            lines = read_bytes(file).decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"photos.screen.opt_out: {file}: cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if not self._add(line.strip()):
                raise ConfigError(
                    f"photos.screen.opt_out: {file}:{number}: {line.strip()[:80]!r} is none of "
                    "sha256:<64 hex digits>, phash:<16 hex digits>, url:<address>, id:<name>, a tombstone"
                )

    def _add(self, line: str) -> bool:
        if not line or line.startswith("#"):
            return True
        kind, _, value = line.partition(":")
        kind = kind.strip().lower()
        if kind in ("url", "id"):
            value = value.split(" #", 1)[0].strip()
            if kind == "url" and is_web(value):
                self._urls.add(plain_url(value))
                return True
            if kind == "id" and value:
                self._ids.add(value)
                return True
            return False
        digits = value.split("#", 1)[0].strip().lower()
        if kind == "sha256" and _is_hex(digits, 64):
            self.photo_ids.add(digits)
        elif kind == "phash" and _is_hex(digits, 16):
            self.hashes.append(int(digits, 16))
        elif kind.startswith("forgotten-") and _is_hex(digits, 64):
            self.tombstones.add(f"{kind}:{digits}")
        else:
            return False
        return True

    def __bool__(self) -> bool:
        return bool(self.photo_ids or self.hashes or self.tombstones or self._ids or self._urls)

    def names(self, row: Mapping[str, Any]) -> bool:
        """Whether the list names a photo by what the collection says of it, before it is read."""
        if self._ids and not self._ids.isdisjoint((row.get("source_key"), row.get("file_name"))):
            return True
        if not self._urls:
            return False
        addresses = (row.get(name) for name in URL_COLUMNS)
        return any(plain_url(address) in self._urls for address in addresses if is_web(address))

    def distance(self, photo_id: str | None, phash: int | None) -> int | None:
        """Bits between a photo and the nearest entry; 0 for its sha256; None for an empty list."""
        if photo_id is not None:
            if photo_id in self.photo_ids:
                return 0
            if self.tombstones and tombstone("photo", photo_id) in self.tombstones:
                return 0
        if phash is None or not self.hashes:
            return None
        return min((phash ^ listed).bit_count() for listed in self.hashes)


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(letter in "0123456789abcdef" for letter in text)
