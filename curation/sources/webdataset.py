"""WebDataset tars as img2dataset writes them: KEY.jpg, KEY.json, KEY.txt side by side.

Members are found by their headers and read later by offset, so one bad photo harms no other. A tar
that is cut or broken yields the members before the break and one row that says where it broke.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any

from curation.settings.source import SourceSettings
from curation.sources.folder import IMAGE_SUFFIXES
from curation.sources.rows import MAX_TEXT_BYTES, SourceRow, beside
from curation.storage import filesystem
from shards.stated import plain_text

_MOST_HEADER_BYTES = 16 * 2**20  # of long names and extended headers
_LABEL_MAP = ".regions.png"  # of our own shards, read as a collection


def webdataset_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each image member, in the order of the tar."""
    fs, path = filesystem(uri)
    size = int(fs.info(path)["size"])
    with fs.open(path, "rb") as stream:
        yield from _rows(stream, size, uri, label, source)


def _rows(stream: Any, size: int, uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    key: str | None = None
    images: list[tarfile.TarInfo] = []
    texts: dict[str, bytes] = {}
    seen: dict[str, int] = {}
    broken: str | None = None
    end = 0
    try:
        headers: Any = _Headers(stream)
        with tarfile.open(fileobj=headers, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined] # tarfile keeps every header otherwise
                end = member.offset_data + (member.size + 511) // 512 * 512
                stem, suffix = _split(member.name)
                if stem != key:
                    yield from _photos(images, texts, uri, label, source, seen)
                    key, images, texts = stem, [], {}
                if posixpath.splitext("x" + suffix)[1] in IMAGE_SUFFIXES and not suffix.endswith(_LABEL_MAP):
                    images.append(member)
                elif suffix in (".json", ".txt") and member.isreg() and member.size <= MAX_TEXT_BYTES:
                    stream.seek(member.offset_data)
                    texts[suffix] = stream.read(member.size)
        # tarfile ends quietly at a cut or unreadable header; a whole tar goes on with zeros.
        stream.seek(end)
        tail = stream.read(512)
        if tail != bytes(512):
            broken = f"cut at byte {size}" if len(tail) < 512 else f"no tar header at byte {end}"
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        broken = f"{error} (at byte {end} of {size})"
    yield from _photos(images, texts, uri, label, source, seen)
    if broken is not None:
        yield SourceRow(
            source_key=f"{label}#broken",
            file_name=label,
            uri=uri,
            collection=source.collection,
            source_error=f"tar is broken: {broken}; what lies behind is unknown",
        )


class _Headers:
    """A tar as tarfile reads it, header by header: none may claim more than `_MOST_HEADER_BYTES`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """At most so many bytes. Raises ValueError for a header of an absurd size."""
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise ValueError(f"a header claims {size} bytes")
        return bytes(self._stream.read(size))

    def seek(self, place: int, whence: int = 0) -> int:
        """Moves. Raises ValueError for a place that no file has."""
        if not 0 <= place < 2**62:
            raise ValueError(f"a member claims to end at byte {place}")
        return int(self._stream.seek(place, whence))

    def tell(self) -> int:
        """Where it is."""
        return int(self._stream.tell())


def _photos(
    images: list[tarfile.TarInfo],
    texts: dict[str, bytes],
    uri: str,
    label: str,
    source: SourceSettings,
    seen: dict[str, int],
) -> Iterator[SourceRow]:
    if not images:
        return
    columns = beside(texts.get(".json"), texts.get(".txt"), source)
    for image in images:
        name = plain_text(image.name)
        seen[name] = seen.get(name, 0) + 1
        again = f"~{seen[name]}" if seen[name] > 1 else ""
        if not image.isreg():
            columns["source_error"] = "the tar member is not a regular file"
        yield SourceRow(
            source_key=f"{label}/{name}{again}",
            file_name=posixpath.basename(name),
            uri=uri,
            offset=image.offset_data,
            length=image.size,
            **columns,
        )


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a member: WebDataset cuts the base name at its first dot."""
    folder, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    return posixpath.join(folder, stem), (dot + ending).lower()
