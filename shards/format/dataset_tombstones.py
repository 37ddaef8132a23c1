"""Tombstones of a dataset: hashes of the ids that it must not hold again.

A line is `forgotten-KIND:` and a sha256 of the kind and the id. A photo's id is itself the sha256 of its
bytes, so only who has the photo (or its id) can ask whether it was forgotten; nobody can read from the
list whom it is about. `photos.screen.opt_out` of a pipeline takes such a file.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from shards.format.dataset import DatasetError

_LINE = re.compile(r"forgotten-(identity|key|photo):[0-9a-f]{64}")
# Identities that curation drew, and the keys of their groups.
_RANDOM_ID = re.compile(r"[0-9a-f]{16}(-[a-z]+)?")
_HEAD = "# sha256 of persona-forgotten:KIND:ID\n"


def tombstone(kind: str, id_: str) -> str:
    """The line that stands for an id. `kind`: identity, key or photo (id: sha256 of its bytes, hex)."""
    return f"forgotten-{kind}:{hashlib.sha256(f'persona-forgotten:{kind}:{id_}'.encode()).hexdigest()}"


def is_unguessable(kind: str, id_: str) -> bool:
    """Whether nobody can guess an id from its tombstone: those of photos, and random ids of ours.

    Keys of foreign datasets may be names or small numbers: whoever tries these finds the key.
    """
    return kind == "photo" or _RANDOM_ID.fullmatch(id_) is not None


class DatasetTombstones:
    """A set of tombstones, as lines. `tombstone(kind, id) in tombstones`: whether an id was forgotten."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._lines = frozenset(lines)

    @classmethod
    def read(cls, path: str | Path) -> "DatasetTombstones":
        """The tombstones of a file. Raises DatasetError with the line that is none."""
        try:
            return cls.parsed(Path(path).read_text(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from None

    @classmethod
    def parsed(cls, text: str, where: str) -> "DatasetTombstones":
        """The tombstones of a file's text; `where` names the file in errors. Raises DatasetError."""
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            if not _LINE.fullmatch(line):
                raise DatasetError(f"{where}:{number}: {line[:80]!r} is no tombstone")
            found.append(line)
        return cls(found)

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def __or__(self, other: "DatasetTombstones") -> "DatasetTombstones":
        return DatasetTombstones(self._lines | other._lines)

    def has(self, kind: str, id_: str) -> bool:
        """Whether an id was forgotten."""
        return tombstone(kind, id_) in self._lines

    def to_bytes(self) -> bytes:
        """The file: sorted, so that it does not tell in which order people asked."""
        return (_HEAD + "".join(f"{line}\n" for line in sorted(self._lines))).encode()
