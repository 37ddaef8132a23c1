"""Walks a tar and says where each file's bytes lie: USTAR, PAX and GNU long names and sizes.

Header blocks are as POSIX.1-2001 (pax) and the GNU tar manual describe them. Nothing is unpacked, and
no header is trusted: a size that leaves the file, a name that leaves the folder, or a wrong sum ends
the walk with the offset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCK = 512
_ZEROS = bytes(BLOCK)
_FILE_TYPES = (b"0", b"\0", b"7")
_MAX_EXTENSION = 2**20  # bytes of one long name or PAX header
# Formats that people take for tars, by their first bytes.
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class TarError(ValueError):
    """Bytes that are no tar; `str()` is one line that begins with the byte offset."""

    def __init__(self, offset: int, says: str) -> None:
        super().__init__(f"byte {offset}: {says}")
        self.offset = offset


@dataclass(frozen=True)
class Entry:
    """A member. `start` is the offset of its first header, `offset` and `length` are of its content."""

    name: str
    start: int
    offset: int
    length: int
    is_file: bool

    @property
    def end(self) -> int:
        """Offset behind the padding."""
        return self.offset + padded(self.length)


def padded(length: int) -> int:
    """Bytes that content takes up in a tar."""
    return length + -length % BLOCK


def walk(read: Callable[[int, int], bytes], size: int, start: int = 0) -> Iterator[Entry]:
    """Every member from byte `start` on, until the block of zeros that ends the tar.

    `read(offset, length)` gives bytes of the tar, fewer only at its end; `size` is that of the tar.
    Raises TarError.
    """
    at = start
    fixed: dict[str, str] = {}  # of all following members (PAX "g")
    while True:
        first, long_name, own = at, None, dict(fixed)
        while True:
            block = read(at, BLOCK)
            if len(block) < BLOCK:
                raise TarError(at, f"the tar is cut: a header needs {BLOCK} bytes, {len(block)} are left")
            if block == _ZEROS:
                if at != first:
                    raise TarError(at, "a long name or PAX header has no member behind it")
                return
            kind, length = _check(block, at)
            content = at + BLOCK
            if kind not in b"xgLK":
                break
            if length > _MAX_EXTENSION:
                raise TarError(at, f"an extended header of {length} bytes; at most {_MAX_EXTENSION} are read")
            data = read(content, length)
            if len(data) < length:
                raise TarError(at, f"the tar is cut: an extended header ends at byte {content + length}")
            if kind == b"L":
                long_name = _text(data.rstrip(b"\0"))
            elif kind == b"x":
                own |= _pax(data, at)
            elif kind == b"g":
                fixed |= _pax(data, at)
                own = fixed | own
            at = content + padded(length)
        if kind == b"S" or any(name.startswith("GNU.sparse") for name in own):
            raise TarError(first, "a sparse member; make the tar without --sparse")
        if "size" in own:
            length = _decimal(own["size"], at)
        name = own.get("path") or long_name or _name(block)
        _check_name(name, first)
        is_file = kind in _FILE_TYPES and not name.endswith("/")
        if not is_file:
            length = 0 if kind in b"123456" else length
        if content + length > size:
            raise TarError(
                at, f"{name!r} has {length} bytes from byte {content} on, but the tar ends at byte {size}"
            )
        entry = Entry(name, first, content, length, is_file)
        yield entry
        at = entry.end


def check_end(read: Callable[[int, int], bytes], size: int, at: int) -> None:
    """`at` is behind the first block of zeros. Raises TarError unless another follows, and only zeros."""
    if size - at < BLOCK:
        raise TarError(at, f"the tar is cut: it ends without its second block of zeros, at byte {size}")
    while at < size:
        data = read(at, min(2**20, size - at))
        if not data:
            raise TarError(at, f"the tar is cut: it should have {size} bytes")
        rest = data.lstrip(b"\0")
        if rest:
            there = at + len(data) - len(rest)
            raise TarError(there, "bytes behind the end of the tar")
        at += len(data)


def _check(block: bytes, at: int) -> tuple[bytes, int]:
    """Type and size of a header block whose sum is right."""
    stated = _number(block[148:156], at, "sum")
    plain = sum(block[:148]) + 8 * 32 + sum(block[156:])
    if stated != plain:
        what = next((name for magic, name in _OTHER_FORMATS.items() if block.startswith(magic)), None)
        if at == 0 and what is not None:
            raise TarError(at, f"no tar but {what}; shards are tars that are not compressed")
        raise TarError(at, f"no tar header: the sum of its bytes is {plain}, the header says {stated}")
    return block[156:157], _number(block[124:136], at, "size")


def _number(field: bytes, at: int, what: str) -> int:
    """Octal digits, or GNU's base 256 where the first bit is set. −1 for a sum that is no number."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value >= 2**63:
            raise TarError(at, f"the {what} in the header is negative or absurd")
        return value
    digits = field.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        if what == "sum":
            return -1
        raise TarError(at, f"the {what} in the header is no octal number: {field!r}")
    return int(digits, 8) if digits else 0


def _decimal(text: str, at: int) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise TarError(at, f"PAX header: size {text[:40]!r} is no number of bytes")
    return int(text)


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":  # GNU's own format has times where the prefix is
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return _text(name)


def _pax(data: bytes, at: int) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`."""
    found = {}
    place = 0
    while place < len(data):
        digits, blank, _ = data[place : place + 20].partition(b" ")
        if not blank or not digits.isdigit():
            if any(data[place:]):
                raise TarError(at, "PAX header: a record without its length")
            break
        end = place + int(digits)
        key, equals, value = data[place + len(digits) + 1 : end].partition(b"=")
        if not equals or end > len(data) or not value.endswith(b"\n"):
            raise TarError(at, "PAX header: a record that does not end where it says")
        found[_text(key)] = _text(value[:-1])
        place = end
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _check_name(name: str, at: int) -> None:
    if not name or "\0" in name:
        raise TarError(at, f"a member with the name {name[:80]!r}")
    if name.startswith("/") or ".." in name.split("/"):
        raise TarError(at, f"the name {name[:200]!r} leads out of the folder")
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        raise TarError(at, f"the name {name[:200].encode('utf-8', 'backslashreplace')!r} is not UTF-8")
