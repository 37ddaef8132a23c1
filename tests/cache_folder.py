"""What lies in the folder of a disk cache, counted while nobody adds, names or removes an entry."""

import fcntl
from contextlib import suppress
from pathlib import Path


def bytes_of(folder: Path) -> int:
    """Of all entries, those being written included."""
    sizes = {}
    with (folder / ".bytes").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in entries_of(folder):
            with suppress(FileNotFoundError):  # one that cannot be kept is taken away by its writer
                about = path.stat()
                sizes[about.st_ino] = about.st_size
    return sum(sizes.values())


def entries_of(folder: Path) -> list[Path]:
    """Their files."""
    return [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
