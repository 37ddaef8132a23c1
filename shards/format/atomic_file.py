"""Files that appear whole or not at all, and whose length and checksum are known when they do."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash


class AtomicFile:
    """A file object to write to, local or any fsspec URL.

    Locally it has a temporary name, is synced and renamed by `commit`; on an object store it appears
    when its upload is completed. As a context manager it is discarded unless it was committed. Raises
    OSError. A killed process can leave the parts of an upload in a store, where no reader sees them; a
    rule of the bucket (AbortIncompleteMultipartUpload) clears them away.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.length = 0
        self._digest = xxhash.xxh3_128()
        self._open = True
        self._local = "://" not in url
        if self._local:
            target = Path(url)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
            self._stream: Any = self._temporary.open("wb")
        else:
            import fsspec  # here: it takes a tenth of a second, and files of this machine do not need it

            # Without autocommit nothing appears when a file is closed or collected, as one is that an
            # error left behind: only `commit` completes its upload.
            system, path = fsspec.core.url_to_fs(url)
            self._stream = system.open(path, "wb", autocommit=False)

    def write(self, data: Any) -> int:
        """Appends bytes."""
        if self._local:
            self._stream.write(data)
        else:
            with self._named_errors():
                self._stream.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self.length += size
        return size

    def tell(self) -> int:
        """Bytes written so far."""
        return self.length

    def flush(self) -> None:
        """Nothing: bytes are safe after `commit`."""

    @property
    def closed(self) -> bool:
        """Whether it was committed or discarded."""
        return not self._open

    @property
    def checksum(self) -> str:
        """xxh3-128 of what was written, hex."""
        return str(self._digest.hexdigest())

    def commit(self) -> None:
        """Makes the file visible."""
        if self._local:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._temporary.replace(self.url)
        else:
            with self._named_errors():
                self._stream.close()
                self._stream.commit()
        self._open = False

    def discard(self) -> None:
        """Leaves nothing behind."""
        if not self._open:
            return
        self._open = False
        if self._local:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)
        else:
            with suppress(Exception):  # what cannot be reached now is perhaps why it is discarded
                self._stream.discard()
            self._stream.closed = True

    def __del__(self) -> None:
        # fsspec's file, where it is collected before it was closed, would begin an upload: at any moment, on
        # any thread, and also when the store is long gone.
        if hasattr(self, "_stream") and not self._local:
            self._stream.closed = True

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A client's errors as OSError, one line with the URL; those of the local system are so already."""
        try:
            yield
        except Exception as error:
            if self._local:
                raise
            kind = type(error) if isinstance(error, PermissionError | FileNotFoundError) else OSError
            lines = str(error).splitlines() or [type(error).__name__]
            raise kind(f"{self.url}: cannot be written: {lines[0]}") from None

    def __enter__(self) -> "AtomicFile":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.discard()


def is_temporary(name: str) -> bool:
    """Whether it is the name of a file that is being written, or was when its writer was killed."""
    return name.startswith(".") and name.endswith(".tmp")


def write_whole(url: str | Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all. Raises OSError."""
    with AtomicFile(str(url)) as file:
        file.write(data)
        file.commit()
