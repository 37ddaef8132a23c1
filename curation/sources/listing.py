"""Every file below a folder of a collection, here or in a store: links are followed, nothing is left out.

What cannot be looked into is listed too, with the reason: a folder that may not be read, a link to
nothing. A folder that several links lead to is listed once, under its own name where it has one here.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.storage import filesystem, is_local, local_path

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Listed:
    """A file. `version` changes when its content does.

    `problem` says why it cannot be read, `is_folder` that what cannot be read is, or may be, a folder.
    """

    size: int | None
    version: str
    problem: str | None = None
    is_folder: bool = False


def files_below(uri: str) -> dict[str, Listed]:
    """{path: what is known} of a file, or of all files below a folder. Paths have no protocol."""
    if is_local(uri):
        return dict(_local(local_path(uri)))
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    return {name: _remote(info) for name, info in fs.find(path, detail=True).items()}


def file_at(uri: str) -> Listed | None:
    """What is known of one file; None where there is none."""
    if is_local(uri):
        path = local_path(uri)
        return _stated(path) if os.path.lexists(path) else None
    fs, path = filesystem(uri)
    try:
        return _remote(fs.info(path))
    except FileNotFoundError:
        return None


def _remote(info: dict[str, Any]) -> Listed:
    stamp = next((info[key] for key in ("ETag", "mtime", "LastModified") if info.get(key)), None)
    return Listed(info.get("size"), f"{info.get('size')}:{stamp}")


def _local(top: str) -> Iterator[tuple[str, Listed]]:
    """Folders that are really here first, then those behind links, by name: so no order of a disk counts."""
    if not os.path.isdir(top):
        if os.path.lexists(top):
            yield top, _stated(top)
        return
    seen: set[Identity] = set()
    above = _above(top)
    folders, links = [top], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            found = os.stat(folder)
            identity = (found.st_dev, found.st_ino)
            if identity in above:
                problem = (
                    f"a link to {os.path.realpath(folder)!r}, in which the collection lies: not followed"
                )
                yield folder, Listed(None, "above", problem, is_folder=True)
                continue
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as found_here:
                entries = sorted(found_here, key=lambda entry: entry.name)
        except OSError as error:
            problem = f"the folder cannot be listed: {error.strerror or error}"
            yield folder, Listed(None, f"unlisted:{error.errno}", problem, is_folder=True)
            continue
        for entry in entries:
            if not _is_folder(entry):
                yield entry.path, _stated(entry.path)
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                folders.append(entry.path)
        links.sort()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _above(top: str) -> set[Identity]:
    """The folders in which a folder lies."""
    found = set()
    place = os.path.dirname(os.path.realpath(top))
    while True:
        state = os.stat(place)
        found.add((state.st_dev, state.st_ino))
        if place == os.path.dirname(place):
            return found - {_identity(top)}
        place = os.path.dirname(place)


def _identity(path: str) -> Identity:
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _stated(path: str) -> Listed:
    try:
        state = os.stat(path)
    except OSError as error:
        problem = error.strerror or str(error)
        if not os.path.islink(path):
            return Listed(None, f"unknown:{error.errno}", problem)
        problem = f"a link to {os.readlink(path)!r}: {problem}"
        file = os.path.basename(path)
        # Of a link to nothing the name alone may tell whether it was one to a folder.
        return Listed(None, f"unknown:{error.errno}", problem, is_folder="." not in file)
    if stat.S_ISDIR(state.st_mode):
        return Listed(None, f"{state.st_size}:{state.st_mtime}", "a folder", is_folder=True)
    # Opening a pipe would wait for ever.
    is_file = stat.S_ISREG(state.st_mode)
    known = f"{state.st_size}:{state.st_mtime}"
    return Listed(state.st_size, known, None if is_file else "not a regular file")
