"""Members of a tar and the places of their bytes: v7, USTAR, PAX, star's and GNU's headers, old and new.

Header blocks are as POSIX.1-2001 (pax), the GNU tar manual and star(5) describe them. Nothing is
unpacked, and no header is trusted: a size that leaves the file or a wrong sum ends the walk with the
offset. What a member may be called is the caller's rule: `walk` has that of shards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCK = 512
_ZEROS = bytes(BLOCK)
_FILE_TYPES = (b"0", b"\0", b"7")
_WITHOUT_CONTENT = b"23456"  # whatever size their headers state
_EXTENSIONS = b"xXgLK"
_MAX_EXTENSION = 2**24  # bytes of one long name or PAX header
_KINDS = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "pipe",
    b"D": "folder",
    b"M": "part of a file of another volume",
    b"S": "sparse file",
}
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A member. `start` is the offset of its first header, `offset` and `length` are of its content.

    `kind` is file, folder, hard link, symbolic link, device, pipe, sparse file, or another in words;
    `target` is what a link names.
    """

    name: str
    start: int
    offset: int
    length: int
    kind: str
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the content is a whole file's bytes, as they are."""
        return self.kind == "file"

    @property
    def end(self) -> int:
        """Offset behind the padding."""
        return self.offset + padded(self.length)


Reader = Callable[[int, int], bytes]


def padded(length: int) -> int:
    """Bytes that content takes up in a tar."""
    return length + -length % BLOCK


def walk(read: Reader, size: int, start: int = 0) -> Iterator[Entry]:
    """`members` of a shard. Raises TarError for what no shard may hold, too: sparse members, and names
    that lead out of the folder or are not UTF-8."""
    for entry in members(read, size, start):
        if entry.kind == "sparse file":
            raise TarError(entry.start, "a sparse member; make the tar without --sparse")
        _check_name(entry.name, entry.start)
        yield entry


def members(read: Reader, size: int, start: int = 0) -> Iterator[Entry]:
    """Every member from byte `start` on, whatever it is called, until the block of zeros that ends the tar.

    `read(offset, length)` gives bytes of the tar, fewer only at its end; `size` is that of the tar.
    Raises TarError.
    """
    at = start
    fixed: dict[str, str] = {}  # of all following members (PAX "g")
    ahead: bytes | None = None  # the block at `at`, where it was looked at before
    while True:
        first, long_name, long_target, own = at, None, None, dict(fixed)
        while True:
            block, ahead = read(at, BLOCK) if ahead is None else ahead, None
            if len(block) < BLOCK:
                raise TarError(at, f"the tar is cut: a header needs {BLOCK} bytes, {len(block)} are left")
            if block == _ZEROS:
                if at != first:
                    raise TarError(at, "a long name or PAX header has no member behind it")
                return
            kind, length = _check(block, at)
            content = at + BLOCK
            if kind not in _EXTENSIONS:
                break
            if length > _MAX_EXTENSION:
                raise TarError(at, f"an extended header of {length} bytes; at most {_MAX_EXTENSION} are read")
            data = read(content, length)
            if len(data) < length:
                raise TarError(at, f"the tar is cut: an extended header ends at byte {content + length}")
            if kind == b"L":
                long_name = _text(data.split(b"\0", 1)[0])
            elif kind == b"K":
                long_target = _text(data.split(b"\0", 1)[0])
            elif kind == b"g":
                fixed |= _pax(data, at)
                own = fixed | own
            else:
                own |= _pax(data, at)
            at = content + padded(length)
        if "size" in own:
            length = _decimal(own["size"], at)
        name, says, target = _described(block, kind, own, long_name, long_target)
        if kind == b"S":
            content = _behind_sparse_map(read, block, content)
        if kind == b"1" and length:
            behind = read(content, BLOCK)
            if _is_header(behind):
                length, ahead = 0, behind
        elif kind in _WITHOUT_CONTENT:
            length = 0
        if content + length > size:
            raise TarError(
                at, f"{name!r} has {length} bytes from byte {content} on, but the tar ends at byte {size}"
            )
        entry = Entry(name, first, content, length, says, target)
        yield entry
        at = entry.end


def _described(
    block: bytes, kind: bytes, own: dict[str, str], long_name: str | None, long_target: str | None
) -> tuple[str, str, str]:
    """Name, kind and target of a member, from its header and what was said before it."""
    name = own.get("GNU.sparse.name") or own.get("path") or long_name or _name(block)
    if name.endswith("/"):
        return name, "folder", ""
    if any(key.startswith("GNU.sparse") for key in own):
        return name, "sparse file", ""
    if kind in _FILE_TYPES:
        return name, "file", ""
    target = ""
    if kind in b"12":
        target = own.get("linkpath") or long_target or _text(block[157:257].split(b"\0", 1)[0])
    return name, _KINDS.get(kind, f"member of type {_text(kind)!r}"), target


def behind_end(read: Reader, size: int, at: int) -> int | None:
    """Where the first block lies behind an end mark at `at` that is not zero: of another tar, where the
    two were joined; None where only zeros follow."""
    piece = 2**14  # an end mark is rarely longer than its padding to 10 KiB
    while at < size:
        data = read(at, min(piece, size - at))
        if not data:
            return None
        rest = data.lstrip(b"\0")
        if rest:
            return (at + len(data) - len(rest)) // BLOCK * BLOCK
        at += len(data)
        piece = 2**20
    return None


def check_end(read: Reader, size: int, at: int) -> None:
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
    stated, plain = _number(block[148:156], at, "sum"), _sum(block)
    if stated != plain and stated != _signed_sum(block):
        what = next((name for magic, name in _OTHER_FORMATS.items() if block.startswith(magic)), None)
        if at == 0 and what is not None:
            raise TarError(at, f"no tar but {what}; shards are tars that are not compressed")
        raise TarError(at, f"no tar header: the sum of its bytes is {plain}, the header says {stated}")
    return block[156:157], _number(block[124:136], at, "size")


def _is_header(block: bytes) -> bool:
    """Whether a block behind a hard link's header is the next one, not content: some writers state the
    size of the file that a link names, others (pax with copies) let the content follow."""
    if len(block) < BLOCK or block == _ZEROS:
        return True
    try:
        return _number(block[148:156], 0, "sum") in (_sum(block), _signed_sum(block))
    except TarError:
        return False


def _sum(block: bytes) -> int:
    return sum(block[:148]) + 8 * 32 + sum(block[156:])


def _signed_sum(block: bytes) -> int:
    """As early writers added bytes up, who took them for signed."""
    return _sum(block) - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _behind_sparse_map(read: Reader, block: bytes, at: int) -> int:
    """Where the content of GNU's old sparse member begins: its map may go on in further blocks."""
    more = block[482:483] not in (b"\0", b"0")
    while more:
        block = read(at, BLOCK)
        if len(block) < BLOCK:
            raise TarError(at, "the tar is cut in the map of a sparse member")
        more, at = block[504:505] not in (b"\0", b"0"), at + BLOCK
    return at


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
    prefix = b""
    if block[257:263] == b"ustar\0":
        # In star's headers, which end in "tar\0", two times lie behind a shorter prefix.
        prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].split(b"\0", 1)[0]
    elif block[257:263] == b"ustar " and not (_is_time(block[345:357]) and _is_time(block[357:369])):
        # GNU's own headers have two times there, but Go before 1.8 wrote a prefix.
        prefix = block[345:500].split(b"\0", 1)[0]
    return _text(prefix + b"/" + name if prefix else name)


def _is_time(field: bytes) -> bool:
    """Whether a field holds a number, or nothing."""
    return bool(field[0] & 0x80) or not field.strip(b"\0 01234567")


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
