"""What of a collection is listed as one unit: a folder, a tar, a Parquet file."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from curation.errors import ConfigError, one_line
from curation.settings.source import SourceSettings
from curation.sources.folder import folder_rows, folder_version
from curation.sources.parquet import parquet_rows
from curation.sources.rows import SourceRow
from curation.sources.webdataset import webdataset_rows
from curation.storage import filesystem, is_local, local_path

_SUFFIX = {"webdataset": ".tar", "parquet": ".parquet"}


@dataclass(frozen=True)
class Unit:
    """One piece of the collection. `version` changes when its content does; `label` begins its keys."""

    uri: str
    label: str
    version: str


def list_units(source: SourceSettings) -> list[Unit]:
    """The units of a collection, sorted by label. Raises ConfigError when there are none."""
    paths = [source.path] if isinstance(source.path, str) else source.path
    found: list[tuple[str, str]] = []
    for path in paths:
        found += _expand(path, source)
    if not found:
        wanted = _SUFFIX.get(source.kind, "photos")
        raise ConfigError(f"source.path: {source.path!r}: no {wanted} there")
    units = []
    labels: dict[str, int] = {}
    for uri, version in sorted(set(found), key=lambda item: (posixpath.basename(item[0]), item[0])):
        label = posixpath.basename(uri.rstrip("/")) or "collection"
        labels[label] = labels.get(label, 0) + 1
        if labels[label] > 1:
            label = f"{label}~{labels[label]}"
        units.append(Unit(uri, label, version))
    return units


def unit_rows(unit: Unit, source: SourceSettings) -> Iterator[SourceRow]:
    """The photos of one unit, in an order that depends on its content alone."""
    try:
        if source.kind == "folder":
            yield from folder_rows(unit.uri, unit.label, source)
            return
        rows = webdataset_rows if source.kind == "webdataset" else parquet_rows
        for row in rows(unit.uri, unit.label, source):
            yield replace(row, version=unit.version)
    except Exception as error:  # of any store or parser: what lies behind is one row that says so
        problem = f"cannot be listed: {one_line(error)}"
        yield SourceRow(f"{unit.label}#broken", unit.label, unit.uri, source_error=problem)


def _expand(path: str, source: SourceSettings) -> list[tuple[str, str]]:
    """(uri, version) of the units at a path, folder or glob."""
    if is_local(path):
        path = os.path.abspath(os.path.expanduser(local_path(path)))
    fs, inner = filesystem(path)
    prefix = "" if is_local(path) else path.split("://", 1)[0] + "://"
    if any(letter in inner for letter in "*?["):
        hits = sorted(fs.glob(inner))
    elif source.kind == "folder":
        if not fs.exists(inner):
            raise ConfigError(f"source.path: {path}: no such folder or file")
        hits = [inner]
    elif fs.isdir(inner):
        hits = [name for name in sorted(fs.find(inner)) if name.endswith(_SUFFIX[source.kind])]
    elif fs.exists(inner):
        hits = [inner]
    else:
        raise ConfigError(f"source.path: {path}: no such folder or file")
    if source.kind == "folder":
        return [(prefix + hit, folder_version(prefix + hit)) for hit in hits]
    return [(prefix + hit, _version(fs, hit)) for hit in hits]


def _version(fs: Any, path: str) -> str:
    """Size and ETag or modification time of a file; of one that is not there, that it is not."""
    try:
        info = fs.info(path)
    except OSError:
        return "absent"
    stamp = next((info[key] for key in ("ETag", "mtime", "LastModified") if info.get(key)), "")
    return f"{info.get('size')}:{stamp}"
