"""A large run out of a small one: its barriers many times over, every copy with ids of its own.

Nothing is curated: what reads a run folder (status, why, report) finds as many rows as it is measured on.
The photos of the first copy can be read; those of the others have ids that are not the hash of their bytes.
"""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.fragments import Fragment, about, commit, list_fragments

_FOLDERS = ("photos/_screened", "photos", "people/_photos", "people", "identities", "outfits", "captions")
_NAMES = ("source_key", "file_name")
_IDS = ("photo_id", "person_id", "person_ids", "identity", "group")
_BUCKET = re.compile(r"bucket-(\d+)\.parquet")


def multiply(source: Path, target: Path, times: int) -> None:
    """Writes the run `target`: `times` copies of the barriers of the finished run `source`."""
    for folder in _FOLDERS:
        fragments = list_fragments(str(source / folder))
        for copy in range(times):
            for fragment in fragments:
                path = source / folder / fragment.name
                name = Fragment(copy * len(fragments) + fragment.index, fragment.key).name
                commit(str(target / folder / name), _renamed(_read(path), copy), about(str(path)))
    _gathered(source / "outfits", target / "outfits", times)
    groups = _read(source / "packing" / "groups.parquet")
    (target / "packing").mkdir(parents=True, exist_ok=True)
    many = pa.concat_tables([_renamed(groups, copy) for copy in range(times)])
    pq.write_table(many, target / "packing" / "groups.parquet")
    (target / "run.yaml").write_text((source / "run.yaml").read_text())
    (target / "status.json").write_text((source / "status.json").read_text())
    summary = json.loads((source / "summary.json").read_text())
    (target / "summary.json").write_text(json.dumps(_times(summary, times)))


def _read(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None)


def _gathered(source: Path, target: Path, times: int) -> None:
    for folder in source.glob("_gathered-*"):
        buckets = [file for file in sorted(folder.iterdir()) if _BUCKET.fullmatch(file.name)]
        place = target / folder.name
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            for number, file in enumerate(buckets):
                name = f"bucket-{copy * len(buckets) + number:06d}.parquet"
                pq.write_table(_renamed(_read(file), copy), place / name, compression="zstd")


def _renamed(table: pa.Table, copy: int) -> pa.Table:
    """The table with the ids of a copy; those of the first copy are the ids of the source."""
    if copy == 0:
        return table
    for name in (*_NAMES, *_IDS, "pairs"):
        if name in table.column_names:
            values = [_of_copy(value, copy, name in _NAMES) for value in table[name].to_pylist()]
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table


def _of_copy(value: Any, copy: int, is_name: bool) -> Any:
    """An id whose first four digits are shifted by the copy; a name with the copy before it."""
    if isinstance(value, list):
        return [_of_copy(entry, copy, is_name) for entry in value]
    if isinstance(value, dict):
        return {**value, "a": _of_copy(value["a"], copy, False), "b": _of_copy(value["b"], copy, False)}
    if value is None:
        return None
    if is_name:
        return f"{copy:04d}-{value}"
    return f"{(int(value[:4], 16) + 211 * copy) % 65536:04x}{value[4:]}"


def _times(value: Any, times: int) -> Any:
    """Counts of a summary, so many times."""
    if isinstance(value, dict):
        return {key: _times(entry, times) for key, entry in value.items()}
    if isinstance(value, list):
        return [_times(entry, times) for entry in value]
    return value * times if isinstance(value, int) and not isinstance(value, bool) else value
