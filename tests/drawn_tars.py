"""Tars as other programs write them, header by header: what Python's `tarfile` does not write."""

from collections.abc import Sequence

Members = Sequence[tuple[str, bytes]]
END = bytes(1024)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
FILE, HARD_LINK, SYMBOLIC_LINK, FOLDER = b"0", b"1", b"2", b"5"


def header(
    name: bytes,
    size: int,
    kind: bytes = FILE,
    magic: bytes = USTAR,
    fields: dict[int, bytes] | None = None,
    signed: bool = False,
) -> bytes:
    """A header block. `fields` are further bytes by offset; `signed` is the sum of early writers."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[257:265] = magic
    for offset, data in (fields or {}).items():
        block[offset : offset + len(data)] = data
    block[148:156] = b" " * 8
    total = sum(block) - (256 * sum(byte > 127 for byte in block) if signed else 0)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def content(data: bytes) -> bytes:
    """What lies behind a header: the bytes, padded."""
    return data + bytes(-len(data) % 512)


def member(name: str | bytes, data: bytes, **said: object) -> bytes:
    """Header and content of a plain file, without the end of a tar."""
    raw = name if isinstance(name, bytes) else name.encode()
    return header(raw, len(data), **said) + content(data)  # type: ignore[arg-type]


def tar_of(members: Members) -> bytes:
    """A tar of plain files, in the order given."""
    return b"".join(member(name, data) for name, data in members) + END


def pax(kind: bytes = b"x", **records: str) -> bytes:
    """A PAX header, of the next member or (`g`) of all that follow."""
    data = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return header(b"pax", len(data), kind) + content(data)


def gnu_long_name(name: bytes) -> bytes:
    """GNU's header of a name that is longer than 100 bytes, of the next member."""
    return header(b"././@LongLink", len(name) + 1, b"L", GNU) + content(name + b"\0")
