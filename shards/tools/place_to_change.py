"""A dataset in the place where one process at a time may change it: a folder, or a prefix of a store."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from edges.extras import install_line
from shards.format.dataset import DatasetError, remove_temporaries

LOCK = ".changing"  # an object that is there while a process changes the dataset


class PlaceToChange(Protocol):
    """`folder` is its path or URL; files are written there by `atomic_file`."""

    folder: str

    def alone(self, *, break_lock: bool = False) -> AbstractContextManager[None]:
        """Keeps others out. Raises DatasetError where another process is in."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        ...

    def remove(self, names: Set[str]) -> None:
        """Deletes files, as far as they are there, and what killed writers left."""
        ...


def place_to_change(folder: str) -> PlaceToChange:
    """The place that a path or URL names. Raises DatasetError for a URL that names none."""
    return StoreToChange(folder) if "://" in folder else FolderToChange(folder)


class FolderToChange:
    """A folder of this machine."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @contextmanager
    def alone(self, *, break_lock: bool = False) -> Iterator[None]:
        """The lock goes with the process, however it ends."""
        try:
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DatasetError(f"{self.folder}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise DatasetError(f"{self.folder}: another process is changing this dataset") from None
        finally:
            os.close(handle)

    def read(self, name: str) -> bytes | None:
        """A small file."""
        path = Path(self.folder) / name
        return path.read_bytes() if path.exists() else None

    def remove(self, names: Set[str]) -> None:
        """Deletes files."""
        for name in sorted(names):
            (Path(self.folder) / name).unlink(missing_ok=True)
        remove_temporaries(Path(self.folder))


class StoreToChange:
    """A prefix of an object store that takes conditional writes, as S3 does since 2024.

    A killed process leaves its lock: nobody can tell from outside that it is dead.
    """

    def __init__(self, url: str) -> None:
        self.folder = url.rstrip("/")
        try:
            import obstore
            from obstore.store import from_url

            from shards.remote.object_store import explained
        except ModuleNotFoundError as error:
            raise DatasetError(
                f"{url}: needs the package {error.name}: {install_line('object-stores')}"
            ) from None
        self._obstore, self._explained = obstore, explained
        try:
            self._store = from_url(self.folder, client_options={"allow_http": True})
        except Exception as error:
            raise DatasetError(f"{url}: {str(error).splitlines()[0]}") from None

    @contextmanager
    def alone(self, *, break_lock: bool = False) -> Iterator[None]:
        """The lock is an object that only one process can create."""
        if break_lock:
            self.remove({LOCK})
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
        try:
            self._obstore.put(self._store, LOCK, json.dumps(holder).encode(), mode="create")
        except self._obstore.exceptions.AlreadyExistsError:
            raise DatasetError(f"{self.folder}: {self._holder()}") from None
        except Exception as error:
            raise DatasetError(str(self._explained(f"{self.folder}/{LOCK}", error))) from None
        try:
            yield
        finally:
            self.remove({LOCK})

    def read(self, name: str) -> bytes | None:
        """A small file."""
        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise DatasetError(str(self._explained(f"{self.folder}/{name}", error))) from None

    def remove(self, names: Set[str]) -> None:
        """Deletes objects."""
        try:
            there = {str(item["path"]) for item in self._obstore.list_with_delimiter(self._store)["objects"]}
            if found := sorted(names & there):
                self._obstore.delete(self._store, found)
        except Exception as error:
            raise DatasetError(str(self._explained(self.folder, error))) from None

    def _holder(self) -> str:
        try:
            holder = json.loads(self.read(LOCK) or b"{}")
            who = f"process {holder['pid']} of {holder['host']}, since {holder['since']}"
        except (ValueError, KeyError, TypeError):
            who = "nobody knows which"
        return f"another process is changing this dataset ({who}); where it is dead, --break-lock goes on"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
