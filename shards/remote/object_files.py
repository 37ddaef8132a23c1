"""Bytes of shards in an object store, by place, through a cache of pieces that are fetched once.

A piece is an aligned part of a shard. Its samples are read at different times of an epoch, and again in the
next one; the first reader fetches it, in one request with those beside it that are wanted too. Pieces are
named by the checksum of their shard: a rewritten dataset finds nothing stale, and shards that a new
revision kept are still there. Pieces lie on a local disk (disk_cache.py), or in memory, as far as they are
read ahead.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

from shards.format.index import Span
from shards.remote.fetch_queue import RUN_BYTES, FetchQueue
from shards.remote.range_requests import RangeRequests

PIECE_BYTES = 2 * 2**20
_SMALL_PIECE_BYTES = 2**16  # in memory a piece hardly stays until its other samples are read
_MEMORY_BYTES = 256 * 2**20
_WAIT_S = 20.0  # for a piece that another process fetches


class MemoryCache:
    """Entries by name, up to a number of bytes. Safe for several threads.

    Entries that were read are removed first, then those that were written longest ago.
    """

    writable = True

    def __init__(self, *, max_bytes: int) -> None:
        self._max, self._bytes, self._unread_bytes = max_bytes, 0, 0
        self._unread: OrderedDict[str, bytes] = OrderedDict()
        self._read: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        """`length` bytes of an entry; None where it is missing."""
        with self._lock:
            data = self._unread.pop(name, None)
            if data is not None:
                self._unread_bytes -= len(data)
                self._read[name] = data
            else:
                data = self._read.get(name)
                if data is None:
                    return None
                self._read.move_to_end(name)
        return data[offset : offset + length]

    def holds(self, name: str) -> bool:
        """Whether there is such an entry; it may be gone when it is read."""
        return name in self._unread or name in self._read

    def write(self, name: str, data: Any) -> bool:
        """Keeps an entry; False where it is larger than the cache."""
        kept = bytes(data)
        if len(kept) > self._max:
            return False
        with self._lock:
            self._drop(name, self._unread)
            self._drop(name, self._read)
            self._unread[name] = kept
            self._bytes += len(kept)
            self._unread_bytes += len(kept)
            while self._bytes > self._max:
                oldest = self._read or self._unread
                self._drop(next(iter(oldest)), oldest)
        return True

    def has_room(self) -> bool:
        """Whether less than half of it waits to be read; the other half is for what is on its way."""
        return self._unread_bytes < self._max / 2

    def claim(self, name: str) -> bool:
        """There are no other processes to agree with."""
        return True

    def release(self, name: str) -> None:
        """There are no other processes to agree with."""

    def _drop(self, name: str, entries: OrderedDict[str, bytes]) -> None:
        data = entries.pop(name, b"")
        self._bytes -= len(data)
        if entries is self._unread:
            self._unread_bytes -= len(data)


class PieceCache(Protocol):
    """Keeps pieces by name: `DiskCache`, or in memory."""

    @property
    def writable(self) -> bool:
        """False from when the disk is full on."""
        ...

    def read(self, name: str, offset: int, length: int, of: int, *, check: bool) -> bytes | None:
        """`length` bytes of an entry that has `of`; None where it is missing or broken."""
        ...

    def holds(self, name: str) -> bool:
        """Whether there is such an entry; it may be gone when it is read."""
        ...

    def write(self, name: str, data: Any) -> bool:
        """Keeps an entry, where it can."""
        ...

    def has_room(self) -> bool:
        """False where what is fetched ahead would push out what was, and is not read yet."""
        ...

    def claim(self, name: str) -> bool:
        """False where another process is on its way with an entry."""
        ...

    def release(self, name: str) -> None:
        """Gives a claim back."""
        ...


class ObjectFiles:
    """Reads ranges of numbered objects. Safe to call from several threads.

    keys    the objects' names below the store's URL
    names   their checksums, which stand for their content
    sizes   their bytes
    cache   where pieces are kept; None: in memory, as much as is read ahead
    piece_bytes, run_bytes   of a piece; of the neighbouring pieces that one request may get
    """

    def __init__(
        self,
        requests: RangeRequests,
        keys: Sequence[str],
        names: Sequence[str],
        sizes: Sequence[int],
        cache: PieceCache | None = None,
        *,
        piece_bytes: int | None = None,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self._piece = piece_bytes or (_SMALL_PIECE_BYTES if cache is None else PIECE_BYTES)
        self._cache: PieceCache = MemoryCache(max_bytes=_MEMORY_BYTES) if cache is None else cache
        self._requests, self._keys = requests, list(keys)
        self._names, self._sizes = list(names), list(sizes)
        self._queue = FetchQueue(requests, keys, self, run_bytes=run_bytes)
        self._sound: dict[int, bytearray] = {}  # 1 for each piece whose checksum was compared
        self._without_disk: ObjectFiles | None = None

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the object ends before."""
        if offset + length > self._sizes[file]:
            size = self._sizes[file]
            raise OSError(
                f"{self._requests.url}/{self._keys[file]}: ends at byte {size}, wanted {offset + length}"
            )
        pieces = self._pieces(file, offset, length)
        if not self._cache.writable and not self._holds(pieces):
            return self._small().read(file, offset, length)
        if len(pieces) > 1:
            self._announce_missing(pieces)
        parts = []
        for piece in pieces:
            begin = max(offset, piece.offset)
            end = min(offset + length, piece.offset + piece.length)
            parts.append(self._part(piece, begin - piece.offset, end - begin))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, spans: Sequence[tuple[int, int, int]]) -> None:
        """Fetches the pieces that hold these (file, offset, length), as far as they are not there."""
        wanted = [(span, self._pieces(*span)) for span in spans]
        if not self._cache.writable:
            self._small().prefetch([span for span, pieces in wanted if not self._holds(pieces)])
            return
        # Whether one is there is asked when its turn comes: it may be pushed out until then.
        self._queue.ahead([piece for _, pieces in wanted for piece in pieces])

    def close(self) -> None:
        """Ends what is on its way. A cache that was given stays open."""
        self._requests.close()
        self._queue.close()
        if self._without_disk is not None:
            self._without_disk.close()

    def wants(self, span: Span) -> bool:
        """Whether a piece is to be fetched now; where it is, other processes wait for this one."""
        name = self._name(span)
        return not self._cache.holds(name) and self._cache.claim(name)

    def holds(self, span: Span) -> bool:
        """Whether a piece is in the cache; it may be gone when it is read."""
        return self._cache.holds(self._name(span))

    def has_room(self) -> bool:
        """Whether more may be fetched ahead."""
        return self._cache.has_room()

    def put(self, span: Span, data: memoryview) -> None:
        """Keeps a piece."""
        name = self._name(span)
        if self._cache.write(name, data):
            self._sound_of(span.file)[span.offset // self._piece] = 1
        self._cache.release(name)

    def missed(self, span: Span) -> None:
        """Releases the claim on a piece that could not be fetched, so that other processes fetch it."""
        self._cache.release(self._name(span))

    def _part(self, piece: Span, offset: int, length: int) -> bytes:
        name = self._name(piece)
        sound, number = self._sound_of(piece.file), piece.offset // self._piece
        until = time.monotonic() + _WAIT_S
        came_late = False
        while True:
            data = self._cache.read(name, offset, length, piece.length, check=not sound[number])
            if data is not None:
                sound[number] = 1
                if self._queue.waits and self._cache.has_room():
                    self._queue.go_on()
                return data
            sound[number] = 0
            if self._cache.claim(name) or time.monotonic() > until:
                # Once: an entry that is there, but that this process may not read, is fetched.
                found = self._queue.now(piece, offset, length, unless_held=not came_late)
                if found is not None:
                    return found
                came_late = True
                self._cache.release(name)
                continue
            time.sleep(0.005)

    def _announce_missing(self, pieces: Sequence[Span]) -> None:
        """Queues all missing pieces, so that they are fetched side by side."""
        missing = [piece for piece in pieces if not self._cache.holds(self._name(piece))]
        if len(missing) > 1:
            self._queue.ahead(missing)

    def _holds(self, pieces: Sequence[Span]) -> bool:
        return all(self._cache.holds(self._name(piece)) for piece in pieces)

    def _small(self) -> "ObjectFiles":
        if self._without_disk is None:
            self._without_disk = ObjectFiles(self._requests, self._keys, self._names, self._sizes)
        return self._without_disk

    def _pieces(self, file: int, offset: int, length: int) -> list[Span]:
        """The pieces that hold these bytes; bytes behind the end of the file have none."""
        step, size = self._piece, self._sizes[file]
        return [
            self._span(file, number)
            for number in range(offset // step, -(-min(offset + length, size) // step))
        ]

    def _span(self, file: int, number: int) -> Span:
        offset = number * self._piece
        return Span(file, offset, min(self._piece, self._sizes[file] - offset))

    def _name(self, span: Span) -> str:
        return f"{self._names[span.file]}-{span.offset // self._piece}-{self._piece}"

    def _sound_of(self, file: int) -> bytearray:
        found = self._sound.get(file)
        if found is None:
            pieces = -(-self._sizes[file] // self._piece)
            found = self._sound.setdefault(file, bytearray(pieces))
        return found
