"""Proves that a dataset is what was written, and names what is not: file, member, byte, what was expected."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from shards.format.atomic_file import is_temporary
from shards.format.dataset import (
    DatasetError,
    card_names,
    dataset_checksum,
    files_of,
    index_name,
    is_indexed_as_found,
    problem_in,
    unfinished_files_of,
)
from shards.format.index import INDEX_SCHEMA, IPC_ALONE
from shards.format.sample import SCHEMA_VERSION
from shards.reading.revisions import Revisions
from shards.tools.commands import folder_of, processes_of, processes_option, progress_of, say
from shards.tools.dataset_rows import mapped_index, numbers_of
from shards.tools.shard_check import CheckedShard, Problem, check_members
from shards.tools.side_files import side_files, stale_line
from shards.tools.whole_shards import ForwardReader, in_order

_ENTRY = ("name", "groups", "photos", "bytes", "checksum")
_SUMS = ("groups", "photos", "bytes")
# Of files that a killed change left, beside which nothing is damaged.
ENDS_IT = "run the same command (persona shards forget, or strip) again to end it"


@dataclass
class Report:
    """What was checked of a dataset, and the problems found.

    stale_side_files   files of other programs that tell of shards which are no more
    """

    folder: str
    shards: int = 0
    members: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    stale_side_files: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all is as it was written, and no file beside it is stale."""
        return not self.problems and not self.stale_side_files

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "ok": self.ok}


def verify(
    folder: str,
    *,
    fast: bool = False,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Checks a dataset, local or any fsspec URL. Raises DatasetError only where there is no such folder.

    fast   sizes and checksums of whole files; otherwise every member's header, content and padding too
    """
    report = Report(folder)
    try:
        system, root = fsspec.core.url_to_fs(folder)
    except (ValueError, ImportError) as error:  # not known, or not installed
        raise DatasetError(f"{folder}: cannot be opened: {' '.join(str(error).split())}") from None
    if not system.isdir(root):
        raise DatasetError(f"{folder}: no such folder")
    found = system.ls(root, detail=True, refresh=True)  # a store's may be remembered of before a change
    sizes = {str(item["name"]).rsplit("/", 1)[-1]: int(item["size"]) for item in found}
    about = _read_about(system, root, sizes, report.problems)
    if about is None:
        return report
    beside = side_files(folder, about)
    report.stale_side_files = beside.stale
    report.problems += _file_problems(about, {n: size for n, size in sizes.items() if n not in beside.names})
    report.problems += _tombstone_problems(system, root, about, sizes)
    present = [number for number, entry in enumerate(about["shards"]) if entry["name"] in sizes]
    with tempfile.TemporaryDirectory() as local:
        table = _check_index(system, root, about, sizes, Path(local), report.problems)
        rows = None if table is None else _rows_by_shard(table, about, report.problems)
        tasks = _tasks(folder, about, present, None if fast else rows)
        for number, checked in zip(present, in_order(_check_shard, tasks, processes), strict=True):
            report.problems += _shard_problems(about["shards"], number, checked)
            report.shards += 1
            report.members += checked.members
            report.bytes += checked.size
            if progress is not None:
                progress(report.shards, len(present))
    return report


@dataclass(frozen=True)
class _Task:
    """A shard, and its rows of the index as an Arrow stream; without them it is only hashed."""

    folder: str
    name: str
    rows: bytes | None


def _tasks(
    folder: str, about: Mapping[str, Any], shards: Sequence[int], rows: Sequence[pa.Table] | None
) -> Iterator[_Task]:
    for number in shards:
        sink = pa.BufferOutputStream()
        if rows is not None:
            with pa.ipc.new_stream(sink, INDEX_SCHEMA) as writer:
                writer.write_table(rows[number])
        stream = None if rows is None else sink.getvalue().to_pybytes()
        yield _Task(folder, about["shards"][number]["name"], stream)


def _check_shard(task: _Task) -> CheckedShard:
    system, root = fsspec.core.url_to_fs(task.folder)
    checked = CheckedShard()
    path = f"{root}/{task.name}"
    try:
        size = int(system.size(path))
        with system.open(path, "rb") as stream:
            reader = ForwardReader(stream)
            if task.rows is not None:
                rows = pa.ipc.open_stream(task.rows, options=IPC_ALONE).read_all().to_pylist()
                check_members(reader, size, task.name, rows, checked)
            checked.size, checked.checksum = reader.finish()
    except OSError as error:
        checked.add(Problem(task.name, f"cannot be read: {error.strerror or error}"))
    return checked


def _shard_problems(
    entries: Sequence[Mapping[str, Any]], number: int, checked: CheckedShard
) -> list[Problem]:
    entry = entries[number]
    name = entry["name"]
    if checked.checksum == entry["checksum"] and checked.size == entry["bytes"]:
        if not checked.problems:
            return []
        says = "the shard is what was written; so it is the index that is wrong:"
        return [Problem(name, says), *_with_count(name, checked)]
    for other in entries:
        if checked.checksum == other["checksum"] and checked.size == other["bytes"]:
            return [Problem(name, f"holds what {other['name']} should hold: the two were swapped or copied")]
    found = []
    if checked.size != entry["bytes"]:
        found.append(Problem(name, f"has {checked.size} bytes, dataset.json says {entry['bytes']}"))
    if checked.checksum != entry["checksum"]:
        says = f"has the checksum {checked.checksum or 'unknown'}, dataset.json says {entry['checksum']}"
        found.append(Problem(name, says))
    return found + _with_count(name, checked)


def _with_count(name: str, checked: CheckedShard) -> list[Problem]:
    more = [Problem(name, f"and {checked.more} more of the kind")] if checked.more else []
    return checked.problems + more


def _read_about(
    system: Any, root: str, sizes: Mapping[str, int], problems: list[Problem]
) -> dict[str, Any] | None:
    """dataset.json where it can be worked with at all."""
    name = "dataset.json"
    if name not in sizes:
        problems.append(Problem(name, "is missing: not a dataset, or one that is being written"))
        return None
    try:
        about = json.loads(system.cat_file(f"{root}/{name}"))
        major = int(str(about["schema"]).split(".")[0])
    except (ValueError, KeyError, TypeError) as error:
        says = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        problems.append(Problem(name, says))
        return None
    if major > int(SCHEMA_VERSION.split(".")[0]):
        problems.append(Problem(name, f"has schema {about['schema']}; this version reads {SCHEMA_VERSION}"))
        return None
    wrong = problem_in(about) or next((f"lacks {key!r}" for key in _SUMS if key not in about), None)
    if wrong is not None:
        problems.append(Problem(name, wrong))
        return None
    for number, entry in enumerate(about["shards"]):
        missing = [key for key in _ENTRY if key not in entry]
        if missing:
            problems.append(Problem(name, f"shards[{number}]: lacks {missing[0]!r}"))
            return None
    if "checksum" in about and about["checksum"] != dataset_checksum(about):
        problems.append(
            Problem(
                name, f"was edited: its checksum is {dataset_checksum(about)}, it says {about['checksum']}"
            )
        )
    for key in _SUMS:
        total = sum(entry[key] for entry in about["shards"])
        if about[key] != total:
            problems.append(Problem(name, f"{key} is {about[key]}, its shards add up to {total}"))
    try:
        Revisions.of(about)
    except (ValueError, KeyError, TypeError) as error:
        problems.append(Problem(name, f"history: {error}"))
    return dict(about)


def _file_problems(about: Mapping[str, Any], sizes: Mapping[str, int]) -> list[Problem]:
    wanted, unborn = files_of(about), unfinished_files_of(about)
    needed = wanted - (set(card_names(about)) if is_indexed_as_found(about) else set())
    found = [Problem(name, "is missing") for name in sorted(needed - set(sizes))]
    for name in sorted(set(sizes) - wanted):
        if name in about.get("replaced", []):
            found.append(Problem(name, f"is of the revision before: {ENDS_IT}"))
        elif name in unborn or is_temporary(name):
            found.append(Problem(name, f"is left of a change that was killed: {ENDS_IT}"))
        elif not is_indexed_as_found(about) or name.endswith((".tar", ".tmp")):
            found.append(Problem(name, "is no file of this dataset"))
    return found


def _tombstone_problems(
    system: Any, root: str, about: Mapping[str, Any], sizes: Mapping[str, int]
) -> list[Problem]:
    stated = about.get("tombstones")
    if stated is None or stated["name"] not in sizes:
        return []
    with system.open(f"{root}/{stated['name']}", "rb") as stream:
        _, checksum = ForwardReader(stream).finish()
    if checksum == stated["checksum"]:
        return []
    return [Problem(stated["name"], f"has the checksum {checksum}, dataset.json says {stated['checksum']}")]


def _check_index(
    system: Any,
    root: str,
    about: Mapping[str, Any],
    sizes: Mapping[str, int],
    local: Path,
    problems: list[Problem],
) -> pa.Table | None:
    """Both files of the index. Returns the rows of one that is right, else of one that opens."""
    right: dict[str, bool] = {}
    arrow: pa.Table | None = None
    parquet: pq.ParquetFile | None = None
    for kind in ("arrow", "parquet"):
        name = index_name(about, kind)
        if name not in sizes:
            continue
        with system.open(f"{root}/{name}", "rb") as stream:
            _, checksum = ForwardReader(stream).finish()
        stated = about.get("index", {}).get(name)
        right[kind] = checksum == stated
        if checksum != stated:
            problems.append(Problem(name, f"has the checksum {checksum}, dataset.json says {stated}"))
        path = Path(root) / name
        if not isinstance(system, LocalFileSystem):
            path = local / name
            system.get_file(f"{root}/{name}", str(path))
        try:
            if kind == "arrow":
                arrow = mapped_index(path)
            else:
                parquet = _open_parquet(path)
        except DatasetError as error:
            problems.append(Problem(name, str(error).removeprefix(f"{path}: ")))
    if arrow is not None and parquet is not None:
        try:
            problems += _differences(arrow, parquet, about)
        except (OSError, ValueError, pa.ArrowException) as error:
            problems.append(Problem(index_name(about, "parquet"), str(error).splitlines()[0]))
            parquet = None
    if parquet is not None and (arrow is None or (right["parquet"] and not right["arrow"])):
        return _rows_of(parquet.read(use_threads=False))
    return arrow


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from None
    if set(INDEX_SCHEMA.names) - set(file.schema_arrow.names):
        raise DatasetError(f"{path}: has other columns than this version reads")
    return file


def _rows_of(table: pa.Table) -> pa.Table:
    return table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)


def _differences(arrow: pa.Table, parquet: pq.ParquetFile, about: Mapping[str, Any]) -> list[Problem]:
    """The first row in which the two files of the index differ; one group of rows is in memory at a time."""
    name, other = index_name(about, "arrow"), index_name(about, "parquet")
    if len(arrow) != parquet.metadata.num_rows:
        return [Problem(name, f"has {len(arrow)} rows, {other} {parquet.metadata.num_rows}")]
    start = 0
    for group in range(parquet.num_row_groups):
        two = _rows_of(parquet.read_row_group(group, use_threads=False))
        one = arrow.slice(start, len(two))
        if not one.equals(two):
            for row, (left, right) in enumerate(zip(one.to_pylist(), two.to_pylist(), strict=True), start):
                column = next(
                    (column for column in INDEX_SCHEMA.names if left[column] != right[column]), None
                )
                if column is not None:
                    says = (
                        f"row {row} ({left['key']}): {column} is {_short(left[column])}, "
                        f"in {other} {_short(right[column])}"
                    )
                    return [Problem(name, says)]
        start += len(two)
    return []


def _rows_by_shard(
    table: pa.Table, about: Mapping[str, Any], problems: list[Problem]
) -> list[pa.Table] | None:
    """The rows of each shard; None where they are not in the order of the shards."""
    entries = about["shards"]
    shard = numbers_of(table["shard"])
    if shard.size and ((np.diff(shard) < 0).any() or shard[0] < 0 or shard[-1] >= len(entries)):
        wrong = int(np.flatnonzero((np.diff(shard, prepend=0) < 0) | (shard >= len(entries)))[0])
        says = f"row {wrong}: shard {shard[wrong]} is not in order, or not among the {len(entries)} there are"
        problems.append(Problem("index", says))
        return None
    starts = np.searchsorted(shard, np.arange(len(entries) + 1))
    for entry, (start, stop) in zip(entries, pairwise(starts), strict=True):
        if stop - start != entry["groups"]:
            says = f"the index has {stop - start} groups in it, dataset.json {entry['groups']}"
            problems.append(Problem(entry["name"], says))
    return [table.slice(start, stop - start) for start, stop in pairwise(starts)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards verify`."""
    parser.add_argument("folder", metavar="DIR", help="a folder, or a URL such as s3://bucket/dataset")
    parser.add_argument("--fast", action="store_true", help="sizes and checksums of whole files only")
    processes_option(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    report = verify(
        folder_of(options.folder),
        fast=options.fast,
        processes=processes_of(options),
        progress=progress_of(options),
    )
    read = f"{report.shards} shards, {report.members} members, {report.bytes} bytes"
    state = f"{len(report.problems)} problems" if report.problems else "all as it was written"
    stale = [stale_line(report.stale_side_files)] if report.stale_side_files else []
    say(options, report.to_json(), [*map(str, report.problems), f"{read}: {state}", *stale])
    return 0 if report.ok else 1
