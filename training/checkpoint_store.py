"""Checkpoints in an object store: one that has its record is whole, because the record is written last.

    URL/step-00001000/adapter.safetensors … checkpoint.json

Files are written on this machine first and sent from there; to be read they are fetched to it. Requests
that fail are sent again by the client (obstore: ten times within three minutes). Keys and endpoint come
from the environment, see shards/remote/object_store.py.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import obstore
from obstore.store import from_url

from shards.remote.object_store import explained

RECORD = "checkpoint.json"
_WHOLE = re.compile(rf"(step-\d{{8}})/{re.escape(RECORD)}")
_STREAM_BYTES = 8 * 2**20


class CheckpointStore:
    """Checkpoints below a URL, such as s3://bucket/run. Raises OSError, one line that names the URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._told(""):
            self._store: Any = from_url(self.url, client_options={"allow_http": True})

    def names(self) -> list[str]:
        """Of whole checkpoints, oldest first."""
        return sorted(found[1] for path in self._paths("") if (found := _WHOLE.fullmatch(path)))

    def publish(self, folder: Path, name: str) -> None:
        """Sends a checkpoint that lies in a folder. One of this name is replaced, and missing meanwhile."""
        self.remove(name)
        # False sorts before True: the record goes last.
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == RECORD, file.name)):
            with self._told(f"{name}/{file.name}"):
                obstore.put(self._store, f"{name}/{file.name}", file)

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """A temporary one, which is gone afterwards; TMPDIR says where."""
        with TemporaryDirectory(prefix="persona-checkpoint-") as folder:
            yield Path(folder)

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """A temporary copy of its files."""
        with TemporaryDirectory(prefix="persona-checkpoint-") as folder:
            for path in self._paths(f"{name}/"):
                with self._told(path), (Path(folder) / Path(path).name).open("wb") as file:
                    for piece in obstore.get(self._store, path).stream(min_chunk_size=_STREAM_BYTES):
                        file.write(piece)
            yield Path(folder)

    def record(self, name: str) -> bytes:
        """Fetches that file alone."""
        with self._told(f"{name}/{RECORD}"):
            return bytes(obstore.get(self._store, f"{name}/{RECORD}").bytes())

    def remove(self, name: str) -> None:
        """Its record first: what a killed removal leaves is no checkpoint any more."""
        paths = self._paths(f"{name}/")
        for path in sorted(paths, key=lambda path: (not path.endswith(f"/{RECORD}"), path)):
            with self._told(path):
                obstore.delete(self._store, path)

    def _paths(self, prefix: str) -> list[str]:
        with self._told(prefix):
            return [found["path"] for found in obstore.list(self._store, prefix or None).collect()]

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise explained(f"{self.url}/{path}".rstrip("/"), error) from None
