"""The compiled files beside this one, read: which distributions, with which hashes."""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_LINE = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:\s*;.*)?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})$")


@dataclass(frozen=True)
class Pinned:
    """One distribution. `sha256`: of each file of it that may be installed, hex."""

    name: str
    version: str
    sha256: tuple[str, ...]


class NotPinnedError(ValueError):
    """A line that leaves open what is installed; `str()` names file and line."""


def read_pinned(file: Path) -> list[Pinned]:
    """Every distribution of a compiled file, by name.

    Raises NotPinnedError for anything but exact versions with hashes: an index, a URL, a range, a name
    without a hash.
    """
    found: list[Pinned] = []
    for number, line in enumerate(_joined(file.read_text()), 1):
        words = re.split(r"\s+(?=--hash)", line)
        what = _LINE.match(words[0])
        hashes = [match[1] for match in map(_HASH.match, words[1:]) if match]
        if what is None or not hashes or len(hashes) != len(words) - 1:
            raise NotPinnedError(f"{file.name}: requirement {number} is not pinned with hashes: {line[:80]}")
        found.append(Pinned(what[1], what[2], tuple(sorted(hashes))))
    return sorted(found, key=lambda one: one.name)


def _joined(text: str) -> list[str]:
    """Requirements, a line each, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
