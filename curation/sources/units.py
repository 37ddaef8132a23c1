"""What of a collection is listed as one unit: a folder, a tar, a Parquet file."""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from curation.errors import ConfigError, one_line, printable
from curation.settings import PipelineSettings
from curation.settings.source import SourceSettings
from curation.sources.folder import folder_rows, folder_version
from curation.sources.image_folder import is_metadata
from curation.sources.listing import files_below
from curation.sources.names import ending, is_photo
from curation.sources.parquet import parquet_rows
from curation.sources.paths import named_by
from curation.sources.rows import SourceRow
from curation.sources.webdataset import webdataset_rows
from curation.storage import is_local, local_path

Kind = Literal["folder", "webdataset", "parquet"]
_SUFFIX: dict[str, str] = {"webdataset": ".tar", "parquet": ".parquet"}
IN_RUN = "--set source.kind="
"""What is written before a kind to choose it in a run."""
_MOST_NAMED = 5  # names that a pattern matches, in a line


@dataclass(frozen=True)
class Unit:
    """One piece of the collection. `version` changes when its content does; `label` begins its keys;
    `problem` says why it cannot be listed, and is empty otherwise."""

    uri: str
    label: str
    version: str
    problem: str = ""


def list_units(source: SourceSettings, choose: str = IN_RUN) -> list[Unit]:
    """The units of a collection, sorted by label. Raises ConfigError when there are none.

    choose   what its user writes before a kind to choose it
    """
    found: set[tuple[str, str, str]] = set()
    for path in _paths(source):
        found.update(_units_at(path, source))
    if not found:
        raise ConfigError(nothing_there(source, choose))
    units = []
    labels: dict[str, int] = {}
    for uri, version, problem in sorted(found, key=lambda item: (posixpath.basename(item[0]), item[0])):
        label = posixpath.basename(uri.rstrip("/")) or "collection"
        labels[label] = labels.get(label, 0) + 1
        if labels[label] > 1:
            label = f"{label}~{labels[label]}"
        units.append(Unit(uri, label, version, problem))
    return units


def kind_at(*paths: str, choose: str = IN_RUN) -> Kind:
    """The kind of collection at paths: of tars, else of Parquet files, else a folder. A metadata.parquet
    beside photos is their record, and Parquet files beside tars are those of img2dataset. Lists everything.

    choose   what its user writes before a kind to choose it

    Raises ConfigError where photos lie beside tars or Parquet files: some would be left out in silence.
    """
    counts = _counts_at(paths)
    kind: Kind = "webdataset" if counts["webdataset"] else "parquet" if counts["parquet"] else "folder"
    if kind != "folder" and counts["folder"]:
        there = f"{counts['folder']} photos and {counts[kind]} {_SUFFIX[kind]} files"
        named = printable(", ".join(paths))
        raise ConfigError(f"{named}: {there}; say which are the collection: {choose}folder or {choose}{kind}")
    return kind


def with_kind(pipeline: PipelineSettings) -> PipelineSettings:
    """The pipeline with the kind of its source in the place of `auto`: a run's hash is then the same, however
    the kind came to be known."""
    source = pipeline.source
    if source.kind != "auto":
        return pipeline
    return pipeline.model_copy(
        update={"source": source.model_copy(update={"kind": kind_at(*_paths(source))})}
    )


def nothing_there(source: SourceSettings, choose: str = IN_RUN) -> str:
    """The line on a collection without photos: what it is that lies there instead."""
    counts = _counts_at(_paths(source))
    line = f"source.path: {source.path!r}: no {_SUFFIX.get(source.kind, 'photos')} there"
    for kind, count in counts.items():
        if count and kind != source.kind:
            line += f"; {choose}{kind} would read {count} {_SUFFIX.get(kind, 'photos')}"
    return line


def _counts_at(paths: Iterable[str]) -> dict[Kind, int]:
    """How many tars, Parquet files and photos lie at paths."""
    try:
        names = {name for path in paths for name in named_by(path)[0]}
        files = {file for name in names for file in (local_path(name), *files_below(name))}
    except OSError as error:
        raise ConfigError(f"source.path: {one_line(error)}") from None
    photos = sum(map(is_photo, files))
    endings = Counter(ending(file) for file in files if not (photos and is_metadata(file)))
    return {
        "webdataset": endings[_SUFFIX["webdataset"]],
        "parquet": endings[_SUFFIX["parquet"]],
        "folder": photos,
    }


def pattern_lines(source: SourceSettings) -> list[str]:
    """A line for each path of the collection that is no name of anything and stands for what it matches."""
    lines = []
    for path in _paths(source):
        names, is_pattern = named_by(path)
        if is_pattern and names:
            listed = ", ".join(printable(name) for name in names[:_MOST_NAMED])
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            lines.append(f"source.path: {printable(path)} is a pattern; it stands for {listed}{more}")
    return lines


def unit_rows(unit: Unit, source: SourceSettings) -> Iterator[SourceRow]:
    """The photos of one unit, in an order that depends on its content alone."""
    if unit.problem:
        yield SourceRow(f"{unit.label}#broken", unit.label, unit.uri, source_error=unit.problem)
        return
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


def _paths(source: SourceSettings) -> list[str]:
    return [source.path] if isinstance(source.path, str) else source.path


def _units_at(path: str, source: SourceSettings) -> Iterator[tuple[str, str, str]]:
    """(uri, version, problem) of the units at a path, folder or pattern."""
    try:
        names, is_pattern = named_by(path)
    except PermissionError as error:
        raise ConfigError(f"source.path: {path}: {one_line(error)}") from None
    if not names:
        nor = ", and nothing that it matches" if is_pattern else ""
        raise ConfigError(f"source.path: {path}: no such folder or file{nor}")
    for uri in names:
        if source.kind == "folder":
            yield uri, folder_version(uri), ""
            continue
        prefix = "" if is_local(uri) else uri.split("://", 1)[0] + "://"
        for file, known in files_below(uri).items():
            is_itself = prefix + file == uri
            if known.is_folder or is_itself or ending(file) == _SUFFIX[source.kind]:
                yield prefix + file, known.version, known.problem or ""
