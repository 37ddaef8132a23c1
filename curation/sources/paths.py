"""What a path of a collection names: first what is there under that very name, then what it matches.

Names with brackets, stars and question marks are names as any other. Only a part of a path that does
not exist as it is written is read as a pattern, so no name can lead to another folder in silence.
"""

import os
import posixpath
from collections.abc import Iterator
from fnmatch import fnmatchcase

from curation.storage import exists, is_folder, is_local, join, list_names, local_path

_LETTERS = "*?["


def named_by(path: str) -> tuple[list[str], bool]:
    """The paths or URLs that a path names, sorted, and whether it was read as a pattern.

    Patterns are *, ?, [...] within one part of a path, and ** for any folders below. What lies in a
    folder that is named as well is not named again.
    """
    whole = _absolute(path)
    if exists(whole) or not any(letter in whole for letter in _LETTERS):
        return ([whole] if exists(whole) else []), False
    start, parts = _parts(whole)
    found = [start]
    is_pattern = False
    for part in parts:
        matched: list[str] = []
        for folder in found:
            literal = join(folder, part)
            if not any(letter in part for letter in _LETTERS) or exists(literal):
                matched.append(literal)
            elif part == "**":
                matched += _folders(folder)
            else:
                matched += [join(folder, name) for name in list_names(folder) if fnmatchcase(name, part)]
            is_pattern |= literal not in matched
        found = matched
    names: list[str] = []
    for name in sorted(set(found), key=lambda name: name.split("/")):
        if exists(name) and not (names and name.startswith(names[-1].rstrip("/") + "/")):
            names.append(name)
    return names, is_pattern


def certain_part(path: str) -> str:
    """The folder that all that a path names lies in: the path without its last part where it is a file,
    and without the parts from the first one on that is a pattern."""
    whole = _absolute(path)
    if exists(whole):
        return whole if is_folder(whole) else posixpath.dirname(whole)
    folder, parts = _parts(whole)
    for part in parts[:-1]:
        below = join(folder, part)
        if any(letter in part for letter in _LETTERS) and not exists(below):
            break
        folder = below
    return folder


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(local_path(path))) if is_local(path) else path.rstrip("/")


def _parts(path: str) -> tuple[str, list[str]]:
    """Where to begin, which is never a pattern (the root; a store's bucket), and the parts behind it."""
    if is_local(path):
        return "/", path.strip("/").split("/")
    protocol, _, rest = path.partition("://")
    bucket, *parts = rest.split("/")
    return f"{protocol}://{bucket}", parts


def _folders(folder: str) -> Iterator[str]:
    """A folder and all below it."""
    yield folder
    for name in list_names(folder):
        below = join(folder, name)
        if is_folder(below) and not (is_local(below) and os.path.islink(below)):
            yield from _folders(below)
