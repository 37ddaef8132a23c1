"""Writes one shard: a plain USTAR tar with fixed times and owners, checksums on the way."""

import tarfile
from dataclasses import dataclass

import xxhash

from shards.format.atomic_file import AtomicFile

_BLOCK = 512
_JOINED_BYTES = 32_768  # up to here a copy costs less than more writes


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
        head, padding = header_of(name, len(data)), bytes(-len(data) % _BLOCK)
        start = self._file.length + len(head)
        if len(data) <= _JOINED_BYTES:
            self._file.write(b"".join((head, data, padding)))
        else:
            for part in (head, data, padding):
                self._file.write(part)
        return Member(key, name, start, len(data), xxhash.xxh3_128_hexdigest(data))

    def close(self) -> tuple[int, str]:
        """Ends the tar and makes it visible. Returns its bytes and the xxh3-128 of the whole."""
        self._file.write(bytes(2 * _BLOCK))
        self._file.commit()
        return self._file.length, self._file.checksum


def header_of(name: str, size: int) -> bytes:
    """The header of a member, as `tarfile` writes it in its PAX format, with mode 644 and nothing else.

    A name beyond USTAR's 255 bytes, or not in ASCII, gets a PAX header before it.
    """
    if len(name) >= _NAME_BYTES or size > _USTAR_BYTES or not name.isascii():
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        return header.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
    block, encoded, octal = bytearray(_EMPTY), name.encode(), b"%011o" % size
    block[: len(name)] = encoded
    block[_SIZE] = octal
    block[_SUM] = b"%06o\0" % (_EMPTY_SUM + sum(encoded) + sum(octal))
    return bytes(block)


def _empty() -> bytes:
    """The header of a member without a name and a size, its checksum as blanks, as which it is summed."""
    header = tarfile.TarInfo("")
    header.mode = 0o644
    block = bytearray(header.tobuf(format=tarfile.PAX_FORMAT))
    block[_SUM] = b" " * 7  # the eighth is one already
    block[_SIZE] = bytes(11)
    return bytes(block)


# Fields of a header block, POSIX.1-1988 (ustar): name 100 bytes, size 12 from 124, checksum 8 from 148.
_NAME_BYTES, _SIZE, _SUM = 100, slice(124, 135), slice(148, 155)
_USTAR_BYTES = 8**11 - 1
_EMPTY = _empty()
_EMPTY_SUM = sum(_EMPTY)
