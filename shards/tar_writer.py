"""Writes one shard: a plain USTAR tar with fixed times and owners, checksums on the way."""

import tarfile
from dataclasses import dataclass

import xxhash

from shards.atomic_file import AtomicFile

_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A member as the index holds it. `checksum` is xxh3-128 of its bytes, hex."""

    key: str
    member: str
    offset: int
    length: int
    checksum: str


class ShardWriter:
    """`add` members in order, then `close`; nobody sees half a shard.

    As a context manager it leaves nothing behind unless it was closed.
    """

    def __init__(self, path: str) -> None:
        self._file = AtomicFile(path)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.discard()

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._file.length

    def add(self, key: str, name: str, data: bytes) -> Member:
        """Appends one member of the sample `key`."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        # A name beyond USTAR's 255 bytes gets a PAX header, as GNU tar writes it.
        head = header.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
        self._file.write(head)
        start = self._file.length
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))
        return Member(key, name, start, len(data), xxhash.xxh3_128_hexdigest(data))

    def close(self) -> tuple[int, str]:
        """Ends the tar and makes it visible. Returns its bytes and the xxh3-128 of the whole."""
        self._file.write(bytes(2 * _BLOCK))
        self._file.commit()
        return self._file.length, self._file.checksum
