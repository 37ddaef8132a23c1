"""Tombstones of what must not come back: keyed hashes of photos and addresses, masked hashes of pictures.

Files of a store: FOLDER/tombstones.txt (sorted lines), FOLDER/key (64 hex digits, readable by its owner
alone; $PERSONA_TOMBSTONE_KEY stands in for it). A line is one of

    photo:HEX64   HMAC-SHA256 of a photo_id: the same bytes
    url:HEX64     HMAC-SHA256 of an address, which could be guessed without the key; of one that somebody
                  named two lines, with its query string and without
    phash:HEX16   a perceptual hash XOR a mask drawn from the key: distances between pictures survive,
                  so a re-encoded or resized copy is known again; what the hash says of the picture does not

Who has the key and a photo can ask whether it was forgotten. Nobody can read from the list whom it is about.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from curation.errors import ConfigError, one_line
from curation.excluded.address import addresses_of, normal
from curation.storage import exists, is_local, join, local_path, read_bytes, write_bytes

if TYPE_CHECKING:
    import numpy as np

FILE = "tombstones.txt"
KEY_FILE = "key"
KEY_VARIABLE = "PERSONA_TOMBSTONE_KEY"
STORE_VARIABLE = "PERSONA_FORGOTTEN"
_LINE = re.compile(r"(photo|url):[0-9a-f]{64}|phash:[0-9a-f]{16}")
_KEY = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(r"# persona tombstones, key ([0-9a-f]{16})")


class TombstoneKey:
    """The secret of a store. `text`: 64 hex digits."""

    def __init__(self, text: str, where: str) -> None:
        if not _KEY.fullmatch(text):
            raise ConfigError(f"{where}: is no key of tombstones (64 hex digits)")
        self._secret = bytes.fromhex(text)
        self.mask = int(self.digest("mask", "")[:16], 16)
        self.name = self.digest("name", "")[:16]

    def digest(self, kind: str, value: str) -> str:
        """64 hex digits."""
        return hmac.new(self._secret, f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()

    def photo(self, photo_id: str) -> str:
        """The line that stands for the bytes of a photo."""
        return f"photo:{self.digest('photo', photo_id)}"

    def url(self, address: str, with_query: bool) -> str:
        """The line that stands for an address, with or without its query string."""
        kind = "address" if with_query else "address without query"
        return f"url:{self.digest(kind, normal(address, with_query))}"

    def first_url(self, address: str) -> str:
        """The line for an address as stores were written at first; what they hold is still obeyed."""
        return f"url:{self.digest('url', _first_spelling(address))}"

    def picture(self, phash: int) -> str:
        """The line that stands for what a photo shows."""
        return f"phash:{phash ^ self.mask:016x}"


class TombstoneList:
    """The lines of a store. An empty one has no key and matches nothing."""

    def __init__(self, key: TombstoneKey | None = None, lines: Iterable[str] = ()) -> None:
        self._key = key
        self.lines = frozenset(lines)
        self._has_urls = any(line.startswith("url:") for line in self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def digest(self) -> str:
        """A hash of the lines; empty for none."""
        text = "\n".join(sorted(self.lines))
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    def has_photo(self, photo_id: str | None) -> bool:
        """Whether these bytes are to stay out."""
        return self._key is not None and photo_id is not None and self._key.photo(photo_id) in self.lines

    @cached_property
    def _pictures(self) -> "np.ndarray":
        import numpy as np  # here: whoever only lists models does not wait for it

        return np.array(
            sorted(int(line[6:], 16) for line in self.lines if line.startswith("phash:")), np.uint64
        )

    def has_picture(self, phash: int | None, max_bits: int) -> bool:
        """Whether a picture within `max_bits` of this perceptual hash is to stay out."""
        if self._key is None or phash is None or not len(self._pictures):
            return False
        import numpy as np

        return bool((np.bitwise_count(self._pictures ^ np.uint64(phash ^ self._key.mask)) <= max_bits).any())

    def has_url(self, row: Mapping[str, Any], with_query: bool) -> bool:
        """Whether one of a row's addresses (`COLUMNS`) is to stay out; without `with_query`, also one that
        differs from a named one in its query string alone.
        """
        if self._key is None or not self._has_urls:
            return False
        for address in addresses_of(row):
            lines = {self._key.url(address, with_query=True), self._key.first_url(address)}
            if not with_query:
                lines.add(self._key.url(address, with_query=False))
            if not lines.isdisjoint(self.lines):
                return True
        return False


class ObeyedTombstones:
    """All that a run obeys: the lists of one store or several, each with a key of its own."""

    def __init__(self, lists: Sequence[TombstoneList] = ()) -> None:
        self._lists = [found for found in lists if len(found)]

    def __len__(self) -> int:
        return sum(len(found) for found in self._lists)

    def digest(self) -> str:
        """A hash of all lines; empty for none."""
        return "+".join(sorted(found.digest() for found in self._lists))

    def has_photo(self, photo_id: str | None) -> bool:
        """As that of a list."""
        return any(found.has_photo(photo_id) for found in self._lists)

    def has_picture(self, phash: int | None, max_bits: int) -> bool:
        """As that of a list."""
        return any(found.has_picture(phash, max_bits) for found in self._lists)

    def has_url(self, row: Mapping[str, Any], with_query: bool) -> bool:
        """As that of a list."""
        return any(found.has_url(row, with_query) for found in self._lists)


class TombstoneStore:
    """The folder of a store, path or URL; it is made by the first `add`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @property
    def file(self) -> str:
        """Where the lines are."""
        return join(self.folder, FILE)

    def key(self, create: bool = False) -> TombstoneKey:
        """The key: of the environment, else of its file. Raises ConfigError where there is none."""
        given = os.environ.get(KEY_VARIABLE)
        if given is not None:
            return TombstoneKey(given.strip().lower(), f"${KEY_VARIABLE}")
        path = join(self.folder, KEY_FILE)
        if not exists(path):
            if not create or exists(self.file):
                raise ConfigError(
                    f"{self.folder}: its key is not there: restore {path}, or set ${KEY_VARIABLE}; "
                    "without it nobody can tell what was forgotten"
                )
            _write_key(path)
        return TombstoneKey(read_bytes(path).decode("ascii", "replace").strip(), path)

    def read(self) -> TombstoneList:
        """All lines; none where there is no store. Raises ConfigError for a file or key that is wrong, or
        that cannot be read: a store that is out of reach must not look like an empty one."""
        try:
            lines = read_bytes(self.file).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            if _is_dangling(self.folder) or _is_dangling(self.file):
                raise ConfigError(f"{self.file}: is, or lies behind, a link to nothing") from None
            return TombstoneList()
        except Exception as error:  # of any store
            raise ConfigError(f"{self.file}: cannot be read: {one_line(error)}") from None
        head = _HEAD.fullmatch(lines[0]) if lines else None
        for number, line in enumerate(lines[1:], 2):
            if not _LINE.fullmatch(line):
                raise ConfigError(f"{self.file}:{number}: {line[:80]!r} is no tombstone")
        if head is None:
            raise ConfigError(f"{self.file}: is no list of tombstones")
        key = self.key()
        if key.name != head[1]:
            raise ConfigError(f"{self.file}: was written with another key than the one that is there")
        return TombstoneList(key, lines[1:])

    def add(
        self, photos: Iterable[str], pictures: Iterable[int], urls: Iterable[str], named: Iterable[str] = ()
    ) -> int:
        """Adds what must not come back; the file is whole at any moment. Returns how many lines are new.

        photos    photo_ids
        pictures  perceptual hashes
        urls      addresses of these photos
        named     addresses that somebody named: whatever has them stays out, with any query string
        """
        before = self.read()
        key = self.key(create=True)
        lines = {key.photo(photo_id) for photo_id in photos}
        lines |= {key.picture(phash) for phash in pictures}
        named = set(named)
        lines |= {key.url(url, with_query=True) for url in {*urls, *named}}
        lines |= {key.url(url, with_query=False) for url in named}
        new = lines - before.lines
        if new:
            # Sorted, so that the file does not tell in which order people asked.
            body = "".join(f"{line}\n" for line in sorted(before.lines | new))
            write_bytes(self.file, f"# persona tombstones, key {key.name}\n{body}".encode())
        return len(new)


def store_of_file(pipeline_file: str) -> str:
    """The store of all pipelines of a file: $PERSONA_FORGOTTEN, else `forgotten` beside the file."""
    given = os.environ.get(STORE_VARIABLE)
    beside = os.path.dirname(os.path.abspath(pipeline_file))
    return given if given else os.path.join(beside, "forgotten")


def store_beside(run: str) -> str:
    """The folder `forgotten` beside a run folder, where `persona forget` wrote at first."""
    return join(run.rstrip("/").rpartition("/")[0] or ".", "forgotten")


def stores_of(run: str, chosen: str | None) -> list[TombstoneStore]:
    """The stores that a run obeys: the one its pipeline names or has from its file, and the one beside it."""
    beside = store_beside(run)
    return [TombstoneStore(folder) for folder in dict.fromkeys((chosen or beside, beside))]


def read_tombstones(run: str, chosen: str | None) -> ObeyedTombstones:
    """What must not come back into a run. Raises ConfigError where a list or its key cannot be read."""
    return ObeyedTombstones([store.read() for store in stores_of(run, chosen)])


def _first_spelling(address: str) -> str:
    """The normal form that stores were written with at first: escapes and dots in it as they came."""
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError:  # no address at all
        return address
    host = (parts.hostname or "") + (f":{port}" if port not in (None, 80, 443) else "")
    return urlunsplit(("https", host, parts.path or "/", parts.query, ""))


def _is_dangling(path: str) -> bool:
    return is_local(path) and os.path.islink(local_path(path)) and not os.path.exists(local_path(path))


def _write_key(path: str) -> None:
    text = secrets.token_hex(32) + "\n"
    if not is_local(path):
        write_bytes(path, text.encode())
        return
    target = Path(local_path(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
