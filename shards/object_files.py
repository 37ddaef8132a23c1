"""Bytes of shards in an object store, by place, through a cache of pieces that are fetched once.

A piece is an aligned part of a shard. Its samples are read at different times of an epoch, and again in
the next one; who comes first fetches it, in one request with those beside it that are wanted too. Pieces
are named by the checksum of their shard: a rewritten dataset finds nothing stale, and shards that a new
revision kept are still there.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from shards.byte_ranges import Span
from shards.fetch_queue import FetchQueue
from shards.memory_cache import MemoryCache
from shards.range_requests import RangeRequests

PIECE_BYTES = 2 * 2**20
_SMALL_PIECE_BYTES = 2**16  # in memory a piece hardly stays until its other samples are read
_MEMORY_BYTES = 256 * 2**20
_WAIT_S = 20.0  # for a piece that another process fetches
_UNKNOWN, _THERE, _SOUND = 0, 1, 2


class PieceCache(Protocol):
    """Keeps pieces by name: disk_cache.py, memory_cache.py."""

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
    ) -> None:
        self._piece = piece_bytes or (_SMALL_PIECE_BYTES if cache is None else PIECE_BYTES)
        self._cache: PieceCache = MemoryCache(max_bytes=_MEMORY_BYTES) if cache is None else cache
        self._requests, self._keys = requests, list(keys)
        self._names, self._sizes = list(names), list(sizes)
        self._queue = FetchQueue(requests, keys, self)
        self._known: dict[int, bytearray] = {}  # a byte a piece, of each file that was read from
        self._without_disk: ObjectFiles | None = None

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the object ends before."""
        if offset + length > self._sizes[file]:
            size = self._sizes[file]
            raise OSError(
                f"{self._requests.url}/{self._keys[file]}: ends at byte {size}, wanted {offset + length}"
            )
        if not self._cache.writable and not self._is_known(file, offset, length):
            return self._small().read(file, offset, length)
        numbers = self._pieces(offset, length)
        if len(numbers) > 1:
            self.prefetch([(file, offset, length)])  # so that what is missing comes together
        parts = []
        for number in numbers:
            piece = self._span(file, number)
            begin = max(offset, piece.offset)
            end = min(offset + length, piece.offset + piece.length)
            parts.append(self._part(piece, number, begin - piece.offset, end - begin))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def prefetch(self, spans: Sequence[tuple[int, int, int]]) -> None:
        """Fetches the pieces that hold these (file, offset, length), as far as they are not there."""
        if not self._cache.writable:
            self._small().prefetch([span for span in spans if not self._is_known(*span)])
            return
        pieces: dict[Span, None] = {}
        for file, offset, length in spans:
            for number in self._pieces(offset, min(length, self._sizes[file] - offset)):
                if self._state(file, number) == _UNKNOWN:
                    pieces[self._span(file, number)] = None
        if pieces:
            self._queue.ahead(list(pieces))

    def close(self) -> None:
        """Ends what is on its way. A cache that was given stays open."""
        self._requests.close()
        self._queue.close()
        if self._without_disk is not None:
            self._without_disk.close()

    def wants(self, span: Span) -> bool:
        """Whether to fetch a piece now; where so, other processes wait for this one."""
        name = self._name(span)
        if self._cache.holds(name):
            self._set(span, _THERE)
            return False
        return self._cache.claim(name)

    def put(self, span: Span, data: memoryview) -> None:
        """Keeps a piece."""
        name = self._name(span)
        if self._cache.write(name, data):
            self._set(span, _SOUND)
        self._cache.release(name)

    def missed(self, span: Span) -> None:
        """Lets other processes try."""
        self._cache.release(self._name(span))

    def _part(self, piece: Span, number: int, offset: int, length: int) -> bytes:
        name = self._name(piece)
        until = time.monotonic() + _WAIT_S
        while True:
            check = self._state(piece.file, number) != _SOUND
            data = self._cache.read(name, offset, length, piece.length, check=check)
            if data is not None:
                if check:
                    self._set(piece, _SOUND)
                return data
            self._set(piece, _UNKNOWN)
            if self._cache.claim(name) or time.monotonic() > until:
                return self._queue.now(piece, offset, length)
            time.sleep(0.005)

    def _small(self) -> "ObjectFiles":
        if self._without_disk is None:
            self._without_disk = ObjectFiles(self._requests, self._keys, self._names, self._sizes)
        return self._without_disk

    def _pieces(self, offset: int, length: int) -> range:
        return range(offset // self._piece, (offset + max(length, 0) - 1) // self._piece + 1)

    def _span(self, file: int, number: int) -> Span:
        offset = number * self._piece
        return Span(file, offset, min(self._piece, self._sizes[file] - offset))

    def _name(self, span: Span) -> str:
        return f"{self._names[span.file]}-{span.offset // self._piece}-{self._piece}"

    def _is_known(self, file: int, offset: int, length: int) -> bool:
        return all(self._state(file, number) != _UNKNOWN for number in self._pieces(offset, length))

    def _state(self, file: int, number: int) -> int:
        known = self._known.get(file)
        return _UNKNOWN if known is None else known[number]

    def _set(self, span: Span, state: int) -> None:
        known = self._known.get(span.file)
        if known is None:
            pieces = -(-self._sizes[span.file] // self._piece)
            known = self._known.setdefault(span.file, bytearray(pieces))
        known[span.offset // self._piece] = state
