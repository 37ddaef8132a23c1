"""What a dataset reads its shards through: ranges of numbered files, wherever they lie."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Span(NamedTuple):
    """`length` bytes from `offset` on, of the file with this number."""

    file: int
    offset: int
    length: int


class ByteRanges(Protocol):
    """Safe to call from several threads."""

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises OSError, also where the file ends before."""
        ...

    def prefetch(self, spans: Sequence[Span]) -> None:
        """Says what will be read next, in this order. Returns at once; a later read fails, not this."""
        ...

    def close(self) -> None:
        """Gives up what is open or on its way."""
        ...
