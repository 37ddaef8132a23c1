"""Writes one shard: a plain USTAR tar with fixed times and owners, checksums on the way.

A local shard is written under a temporary name, synced and renamed; on an object store it appears
when its upload is completed. Nobody sees half a shard.
"""

import os
import tarfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import xxhash

_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A member as the index holds it. `checksum` is xxh3-128 of its bytes, hex."""

    key: str
    member: str
    offset: int
    length: int
    checksum: str


@dataclass
class ShardWriter:
    """`add` members in order, then `close`; as a context manager an error leaves nothing behind."""

    path: str

    def __enter__(self) -> "ShardWriter":
        self._digest = xxhash.xxh3_128()
        self._offset = 0
        self._local = "://" not in self.path
        if self._local:
            target = Path(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
            self._stream: Any = self._temporary.open("wb")
        else:
            self._stream = fsspec.open(self.path, "wb").open()
        return self

    def add(self, key: str, name: str, data: bytes) -> Member:
        """Appends one member of the sample `key`."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        # A name beyond USTAR's 255 bytes gets a PAX header, as GNU tar writes it.
        head = header.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
        start = self._offset + len(head)
        self._write(head)
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        digest = xxhash.xxh3_128_hexdigest(data)
        return Member(key, name, start, len(data), digest)

    def close(self) -> tuple[int, str]:
        """Ends the tar and makes it visible. Returns its bytes and the xxh3-128 of the whole."""
        self._write(bytes(2 * _BLOCK))
        if self._local:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._temporary.replace(self.path)
        else:
            self._stream.close()
        self._stream = None
        return self._offset, self._digest.hexdigest()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._stream is None:
            return
        if self._local:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)
        else:
            self._stream.discard()
            self._stream.closed = True

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)
        self._offset += len(data)
