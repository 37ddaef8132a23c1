"""A folder of images, with img2dataset's neighbours `name.json` and `name.txt` where there are any."""

import posixpath
from collections.abc import Iterator
from typing import Any

from curation.errors import one_line
from curation.fingerprint import fingerprint_rows
from curation.settings.source import SourceSettings
from curation.sources.rows import MAX_TEXT_BYTES, SourceRow, beside
from curation.storage import filesystem, is_local, read_bytes
from shards.stated import plain_text

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
        stem, ending = posixpath.splitext(path)
        if ending.lower() not in IMAGE_SUFFIXES:
            continue
        problem: str | None = None
        texts: dict[str, bytes | None] = {}
        for suffix in (".json", ".txt"):
            try:
                texts[suffix] = _text(prefix, stem + suffix, files)
            except (OSError, UnicodeError) as error:
                problem, texts[suffix] = f"its {suffix} cannot be read: {one_line(error)}", None
        columns = beside(texts[".json"], texts[".txt"], source)
        columns["source_error"] = problem or columns["source_error"]
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
    """The file beside a photo, or None where there is none that could be metadata."""
    if path not in files or (files[path].get("size") or 0) > MAX_TEXT_BYTES:
        return None
    return read_bytes(prefix + path)


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
