"""Fragments: the units of work. One fragment in, one file out, committed once.

A fragment file is named by its place and by a hash of all that it depends on: the phase's settings
and models, and the key of its input. A file with the expected name is done; resume lists names.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.fingerprint import fingerprint
from curation.storage import join, list_names, parquet_footer, remove, write_bytes
from shards.format.atomic_file import is_temporary

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"^fragment-(\d{6,})-([0-9a-f]{16})\.parquet$")
_METADATA = b"persona"


@dataclass(frozen=True)
class Fragment:
    """One committed or expected file of a phase."""

    index: int
    key: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"fragment-{self.index:06d}-{self.key}.parquet"

    def after(self, step_hash: str) -> "Fragment":
        """The fragment that a step with this hash makes of this one."""
        return Fragment(self.index, fingerprint([step_hash, self.key]))


def list_fragments(folder: str) -> list[Fragment]:
    """The committed fragments of a folder, by index."""
    matches = (_NAME.match(name) for name in list_names(folder))
    found = [Fragment(int(match[1]), match[2]) for match in matches if match]
    return sorted(found, key=lambda fragment: fragment.index)


def drop_stale(folder: str, expected: Sequence[Fragment]) -> set[Fragment]:
    """Removes fragments and temporary files that are not expected; returns what is committed."""
    wanted = {fragment.name for fragment in expected}
    for name in list_names(folder):
        stale = _NAME.match(name) and name not in wanted
        if stale or is_temporary(name):
            remove(join(folder, name))
    return set(list_fragments(folder))


def digest(fragments: list[Fragment]) -> str:
    """A hash over all fragments of a folder: what a global step depends on."""
    return fingerprint([[fragment.index, fragment.key] for fragment in fragments])


def commit(path: str, table: "pa.Table", about: dict[str, Any]) -> int:
    """Writes a fragment atomically; `about` (counts, calls, seconds) is kept in its footer.

    Returns how many bytes it has.
    """
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(about).encode()}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    data = sink.getvalue()
    write_bytes(path, data)
    return len(data)


def about(path: str) -> dict[str, Any]:
    """What `commit` kept in the footer of a fragment."""
    return dict(json.loads(parquet_footer(path).metadata[_METADATA]))


def stages_counted(table: "pa.Table") -> set[str]:
    """The stages that ruled on the rows of a fragment when it was made, of a table as it was read."""
    kept = (table.schema.metadata or {}).get(_METADATA)
    return set() if kept is None else set(json.loads(kept)["counts"])
