"""The proof: a search for photo_ids and addresses over every file of a place, decoded where it is Parquet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from curation.storage import ALONE, list_files, open_binary, open_parquet

_ID = re.compile(rb"[0-9a-f]{64}")
_START = re.compile(rb"(?<![0-9a-f])[0-9a-f]{10}(?![0-9a-f])")  # of an id, as details of decisions name it
_URL = re.compile(rb"https?://[^\s\"'<>\\\x00]+", re.IGNORECASE)
_BLOCK = 1 << 24
_OVERLAP = 4096  # longer than any id, and than addresses that are still looked for across a block's end


@dataclass
class Searched:
    """files and bytes that were looked through; left: files in which something still stands."""

    files: int = 0
    bytes: int = 0
    left: list[str] = field(default_factory=list)


def search(paths: list[str], photos: set[str], urls: set[str]) -> Searched:
    """Looks for ids and addresses in all files at or below `paths`."""
    ids = {photo_id.encode() for photo_id in photos}
    starts = {name[:10] for name in ids}
    addresses = {url.encode() for url in urls}
    found = Searched()
    for file, length in sorted({file for path in paths for file in list_files(path)}):
        found.files += 1
        found.bytes += length
        if any(_holds(data, ids, starts, addresses) for data in _pieces(file)):
            found.left.append(file)
    return found


def _holds(data: bytes, ids: set[bytes], starts: set[bytes], addresses: set[bytes]) -> bool:
    if ids and not ids.isdisjoint(_ID.findall(data)):
        return True
    if starts and not starts.isdisjoint(_START.findall(data)):
        return True
    return bool(addresses) and not addresses.isdisjoint(_URL.findall(data))


def _pieces(file: str) -> Iterator[bytes]:
    if file.endswith(".parquet"):
        try:
            yield from _texts(file)
            return
        except (pa.ArrowException, OSError):  # no Parquet file after all: its bytes
            pass
    with open_binary(file) as stream:
        tail = b""
        while block := stream.read(_BLOCK):
            yield tail + block
            tail = block[-_OVERLAP:]


def _texts(file: str) -> Iterator[bytes]:
    """Every text and every run of bytes of a Parquet file, decoded; its footer too."""
    with open_parquet(file) as table:
        metadata = table.metadata.metadata or {}
        yield b"\n".join(value for key, value in metadata.items() if key != b"ARROW:schema")
        for group in range(table.num_row_groups):
            for column in table.read_row_group(group, **ALONE).columns:
                for chunk in column.chunks:
                    for leaf in _leaves(chunk):
                        yield _joined(leaf)


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    kind = array.type
    if pa.types.is_struct(kind):
        for leaf in array.flatten():
            yield from _leaves(leaf)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array.cast(pa.large_binary())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield array
    elif pa.types.is_dictionary(kind):
        yield from _leaves(array.dictionary)


def _joined(array: pa.Array) -> bytes:
    return b"\n".join(value for value in array.to_pylist() if value is not None)
