"""A folder of images, with img2dataset's neighbours `name.json` and `name.txt` where there are any."""

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from curation.fingerprint import fingerprint_rows
from curation.settings.source import SourceSettings
from curation.sources.rows import SourceRow, carried_columns
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
        record: dict[str, Any] = {}
        problem = None
        if f"{stem}.json" in files:
            try:
                loaded = json.loads(read_bytes(f"{prefix}{stem}.json"))
                record = loaded if isinstance(loaded, dict) else {}
            except (OSError, ValueError) as error:
                problem = f"{posixpath.basename(stem)}.json: {error}"
        columns = carried_columns(record)
        if "caption" not in columns and f"{stem}.txt" in files:
            columns["caption"] = read_bytes(f"{prefix}{stem}.txt").decode("utf-8", "replace").strip()
        if source.subject_hint == "folder":
            columns["subject_hint"] = posixpath.basename(posixpath.dirname(path))
        if source.collection is not None:
            columns.setdefault("collection", source.collection)
        inside = path[len(root) :].strip("/")
        yield SourceRow(
            source_key=f"{label}/{inside}" if inside else label,
            file_name=posixpath.basename(path),
            uri=prefix + path,
            length=files[path].get("size"),
            metadata=json.dumps(record, sort_keys=True) if record else None,
            source_error=problem,
            version=_version(files[path]),
            **columns,
        )


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
