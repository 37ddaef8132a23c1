"""A request to forget: photos, people, addresses and files, named by options or in a list."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curation.errors import ConfigError, one_line
from curation.excluded.address import is_web, without_comment
from curation.photos.decode import decode_rgb
from curation.photos.perceptual_hash import perceptual_hash

_PHOTO_DIGITS = 64
_HASH_FROM_PX = 256  # as the stage `read` decodes a JPEG for its perceptual hash


@dataclass(frozen=True)
class ForgetRequest:
    """Photos, people and addresses that are to be forgotten, each as a set.

    photos    photo_ids, 64 hex digits
    sent      photo_ids of files that somebody has, which need not be anywhere here
    people    identities, or person_ids (photo_id-N): all photos of that person
    urls      addresses of photos or of their pages
    pictures  perceptual hashes: the photo in whatever encoding or size

    `with_query`: what follows ? in an address counts.
    """

    photos: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    pictures: frozenset[int] = frozenset()
    with_query: bool = False

    def __bool__(self) -> bool:
        return bool(self.photos or self.sent or self.people or self.urls or self.pictures)

    def __or__(self, other: "ForgetRequest") -> "ForgetRequest":
        return ForgetRequest(
            self.photos | other.photos,
            self.sent | other.sent,
            self.people | other.people,
            self.urls | other.urls,
            self.pictures | other.pictures,
            self.with_query or other.with_query,
        )

    def counts(self) -> dict[str, int]:
        """How many of each kind are named."""
        named = {"photos": self.photos, "people": self.people, "urls": self.urls}
        named |= {"files": self.sent, "pictures": self.pictures}  # type: ignore[dict-item]
        return {kind: len(things) for kind, things in named.items()}


def request_of(
    photos: Iterable[str] = (),
    people: Iterable[str] = (),
    urls: Iterable[str] = (),
    files: Iterable[str] = (),
) -> ForgetRequest:
    """A request from options of the command line; `files`: photos that somebody sent. Raises ConfigError."""
    request = ForgetRequest()
    for kind, values in (("photo", photos), ("person", people), ("url", urls), ("hash", files)):
        for value in values:
            request |= _one(kind, value, f"--{kind} {value[:80]!r}", Path())
    return request


def read_requests(path: str) -> ForgetRequest:
    """A list: lines `photo:ID`, `person:ID`, `url:URL`, `hash:FILE` (of a photo, seen from the list),
    `sha256:HEX`, `phash:HEX`; `#` at the start of a line, or after a blank, begins a comment.

    Raises ConfigError with the line that is none of these.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--from {path}: {one_line(error)}") from None
    request = ForgetRequest()
    for number, line in enumerate(lines, 1):
        text = line if not line.lstrip().startswith("#") else ""
        kind, colon, value = without_comment(text).partition(":")
        if kind or colon:
            request |= _one(kind.strip().lower(), value.strip(), f"--from {path}:{number}", Path(path).parent)
    return request


def picture_hash(data: bytes) -> int | None:
    """The perceptual hash of an encoded photo; None where it cannot be decoded."""
    try:
        return perceptual_hash(decode_rgb(data, _HASH_FROM_PX))
    except Exception:  # decoders raise anything at all on broken files
        return None


def _one(kind: str, value: str, where: str, beside: Path) -> ForgetRequest:
    if kind in ("photo", "sha256") and _is_hex(value.lower(), _PHOTO_DIGITS):
        ids = frozenset([value.lower()])
        return ForgetRequest(photos=ids) if kind == "photo" else ForgetRequest(sent=ids)
    if kind == "phash" and _is_hex(value.lower(), 16):
        return ForgetRequest(pictures=frozenset([int(value, 16)]))
    if kind == "person" and (_is_hex(value, 16) or _is_person_id(value)):
        return ForgetRequest(people=frozenset([value]))
    if kind == "url" and is_web(value):
        return ForgetRequest(urls=frozenset([value]))
    if kind == "hash" and value:
        return _of_file(beside / value, where)
    wanted = {
        "photo": "a photo_id has 64 hex digits",
        "person": "an identity has 16 hex digits, a person_id is photo_id-N",
        "url": "an address begins with http:// or https://",
    }
    expected = wanted.get(kind, "is none of photo:, person:, url:, hash:, sha256:, phash:")
    raise ConfigError(f"{where}: {expected}")


def _of_file(path: Path, where: str) -> ForgetRequest:
    """The bytes and the picture of a photo in a file; of one that cannot be decoded, its bytes alone."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}") from None
    phash = picture_hash(data)
    pictures = frozenset[int]() if phash is None else frozenset([phash])
    return ForgetRequest(sent=frozenset([hashlib.sha256(data).hexdigest()]), pictures=pictures)


def _is_person_id(text: str) -> bool:
    photo_id, dash, number = text.partition("-")
    return bool(dash) and _is_hex(photo_id, _PHOTO_DIGITS) and number.isdecimal()


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(letter in "0123456789abcdef" for letter in text)
