"""A folder of images, with img2dataset's neighbours `name.json` and `name.txt` where there are any."""

import posixpath
from collections.abc import Iterator
from typing import Any

from curation.fingerprint import fingerprint_rows
from curation.settings.source import SourceSettings
from curation.sources.rows import SourceRow, beside, plain_text
from curation.storage import filesystem, is_local, read_bytes

# Files with these endings are photos of the collection, also where their format is then refused.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".jxl",
    ]
)


def folder_rows(uri: str, label: str, source: SourceSettings) -> Iterator[SourceRow]:
    """A row for each image file below `uri` (or for `uri` itself), sorted by path."""
    prefix = "" if is_local(uri) else uri.split("://", 1)[0] + "://"
    files = _files(uri)
    root = filesystem(uri)[1].rstrip("/")
    for path in sorted(files):
        stem, suffix = posixpath.splitext(path)
        if suffix.lower() not in IMAGE_SUFFIXES:
            continue
        columns = beside(
            _text(prefix, f"{stem}.json", files), _text(prefix, f"{stem}.txt", files), source.collection
        )
        if source.subject_hint == "folder":
            columns["subject_hint"] = plain_text(posixpath.basename(posixpath.dirname(path)))
        inside = plain_text(path[len(root) :].strip("/"))
        if plain_text(path) != path:
            columns["source_error"] = "the file's name is not valid UTF-8"
        yield SourceRow(
            source_key=f"{label}/{inside}" if inside else label,
            file_name=plain_text(posixpath.basename(path)),
            uri=prefix + plain_text(path),
            length=files[path].get("size"),
            version=_version(files[path]),
            **columns,
        )


def _text(prefix: str, path: str, files: dict[str, dict[str, Any]]) -> bytes | None:
    """A small file beside a photo; where it cannot be read, what a broken one would give."""
    if path not in files:
        return None
    try:
        return read_bytes(prefix + path)
    except (OSError, UnicodeError):
        return b"(unreadable)"


def folder_version(uri: str) -> str:
    """Changes when any file below `uri` appears, goes, or changes size or modification time."""
    return fingerprint_rows((path, _version(info)) for path, info in sorted(_files(uri).items()))


def _version(info: dict[str, Any]) -> str:
    return f"{info.get('size')}:{info.get('ETag') or info.get('mtime')}"


def _files(uri: str) -> dict[str, dict[str, Any]]:
    fs, path = filesystem(uri)
    if not is_local(uri):
        fs.invalidate_cache()
    return dict(fs.find(path, detail=True))
