"""The kinds of tables in a run folder: fragments of a step, listings, cached results, measurements."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.errors import ConfigError
from curation.fragments import Fragment, about, drop_stale, list_fragments
from curation.storage import (
    ALONE,
    exists,
    join,
    list_names,
    open_parquet,
    read_table,
    remove,
    write_bytes,
    write_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

_MEASURED = "_measured"
_ANSWERS = "_answers"
_BUCKET = re.compile(r"bucket-\d{6,}\.parquet")


@dataclass(frozen=True)
class PhaseTable:
    """What a step commits: fragments, Parquet files of one schema with counts of their rows in the footer.

    name    of the folder inside the run, as summary.json has it
    folder  path or URL
    key     the column that names a row
    beside  a second table of the same step. A fragment there is written before that of its name here, which
            commits both; without that one it counts for nothing. A row here names its row there by the column
            `beside.key`, and rows stand in the order of those
    first   of such a second table the folder whose fragments commit it
    """

    name: str
    folder: str
    key: str
    beside: "PhaseTable | None" = None
    first: str = ""

    def fragments(self) -> list[Fragment]:
        """The committed fragments, by index."""
        return list_fragments(self.first or self.folder)

    def keep_only(self, expected: Sequence[Fragment]) -> set[Fragment]:
        """Removes all other fragments, and what was never committed; returns the committed ones."""
        committed = drop_stale(self.folder, expected)
        if self.beside is not None:
            drop_stale(self.beside.folder, list(committed))
        return committed

    def path(self, fragment: Fragment) -> str:
        """The file of a fragment."""
        return join(self.folder, fragment.name)

    def paths(self) -> list[str]:
        """The files of all committed fragments, by index."""
        return [self.path(fragment) for fragment in self.fragments()]

    def about(self) -> list[dict[str, Any]]:
        """What each committed fragment says of itself: rows, counts, calls, seconds."""
        return [about(path) for path in self.paths()]

    def read(self, fragment: Fragment, columns: Sequence[str]) -> "pa.Table":
        """Those of the columns that a fragment has. Raises ConfigError where an older version wrote no second
        table."""
        try:
            return read_known(self.path(fragment), columns)
        except FileNotFoundError as error:
            if not self.first:
                raise
            why = "another version of persona made the run; the same curate command makes this anew"
            raise ConfigError(f"{self.path(fragment)}: is missing: {why}") from error

    def joined(
        self,
        fragment: Fragment,
        columns: Sequence[str],
        of_beside: Sequence[str],
        rows: "pa.Table | None" = None,
    ) -> "pa.Table":
        """The wanted columns of a fragment, and of the row beside each. Raises ConfigError.

        rows  with a column `key`: of these rows alone, in their order and behind their columns
        """
        from curation.columns import join_rows

        assert self.beside is not None
        key = self.beside.key
        beside = self.beside.read(fragment, list(dict.fromkeys([key, *of_beside])))
        table = self.read(fragment, list(dict.fromkeys([key, *columns])))
        if rows is not None:
            table = join_rows(rows, table, self.key)
        return join_rows(table, beside, key)

    def by_index(self, columns: Sequence[str]) -> "Numbered":
        """The wanted columns of every fragment, by its index."""
        return Numbered(self, columns)

    def tables(self, columns: Sequence[str]) -> Iterator["pa.Table"]:
        """The wanted columns of every fragment, in order; those that an older run lacks are absent."""
        return self.by_index(columns).values()

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows of `tables`."""
        for table in self.tables(columns):
            yield from table.to_pylist()


class Numbered:
    """Fragments of a table by their index; one is read each time that it is asked for."""

    def __init__(self, table: PhaseTable, columns: Sequence[str]) -> None:
        self._table, self._columns = table, list(columns)
        self._fragments = {fragment.index: fragment for fragment in table.fragments()}

    def __len__(self) -> int:
        return len(self._fragments)

    def get(self, index: int) -> "pa.Table | None":
        """The fragment with this index, or None where it was not committed."""
        fragment = self._fragments.get(index)
        return None if fragment is None else self._table.read(fragment, self._columns)

    def items(self) -> Iterator[tuple[int, "pa.Table"]]:
        """(index, table) in order."""
        for index, fragment in self._fragments.items():
            yield index, self._table.read(fragment, self._columns)

    def values(self) -> Iterator["pa.Table"]:
        """Tables in order."""
        for fragment in self._fragments.values():
            yield self._table.read(fragment, self._columns)


def read_known(path: str, columns: Sequence[str]) -> "pa.Table":
    """Those of the columns that a Parquet file has, in this order; the file is opened once."""
    with open_parquet(path) as file:
        known = [name for name in columns if name in file.schema_arrow.names]
        return file.read(known, **ALONE).select(known)


@dataclass(frozen=True)
class Listings:
    """The rows of a collection as they were listed: one Parquet file a unit, a row group a fragment."""

    folder: str

    def path(self, key: str) -> str:
        """The file of the unit with this key."""
        return join(self.folder, f"{key}.parquet")

    def paths(self) -> list[str]:
        """All files, sorted."""
        return [join(self.folder, name) for name in list_names(self.folder) if name.endswith(".parquet")]

    def keep_only(self, keys: Sequence[str]) -> set[str]:
        """Removes all files but those of these keys. Returns the keys whose file is there."""
        expected = {f"{key}.parquet": key for key in keys}
        names = list_names(self.folder)
        for name in names:
            if name not in expected:
                remove(join(self.folder, name))
        return {expected[name] for name in names if name in expected}


@dataclass(frozen=True)
class CachedTable:
    """A result over all fragments: FOLDER/PREFIX-KEY.parquet, where KEY names all that it depends on."""

    folder: str
    prefix: str

    def name(self, key: str) -> str:
        """The name of the file with this key."""
        return f"{self.prefix}-{key}.parquet"

    def path(self, key: str) -> str:
        """The file with this key."""
        return join(self.folder, self.name(key))

    def has(self, key: str) -> bool:
        """Whether the result with this key is there."""
        return exists(self.path(key))

    def write(self, key: str, table: "pa.Table", row_group_rows: int | None = None) -> None:
        """Keeps a result."""
        write_table(self.path(key), table, row_group_rows)

    def rows_of(self, key: str, fragment: int) -> list[dict[str, Any]]:
        """The rows whose column `fragment` is this one; small row groups are skipped by their statistics."""
        with open_parquet(self.path(key)) as file:
            place = file.schema_arrow.get_field_index("fragment")
            groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
            known = [group.column(place).statistics for group in groups]
            near = [number for number, of in enumerate(known) if of is None or of.min <= fragment <= of.max]
            rows = file.read_row_groups(near, **ALONE).to_pylist()
        return [row for row in rows if row["fragment"] == fragment]

    def paths(self) -> list[str]:
        """All files, also those of other keys."""
        names = (name for name in list_names(self.folder) if name.startswith(f"{self.prefix}-"))
        return [join(self.folder, name) for name in names if name.endswith(".parquet")]

    def keep_only(self, key: str | None) -> int:
        """Removes the results of all other keys; of None, all. Returns how many."""
        kept = None if key is None else self.path(key)
        stale = [path for path in self.paths() if path != kept]
        for path in stale:
            remove(path)
        return len(stale)


@dataclass(frozen=True)
class GatheredPeople:
    """The people by identity: FOLDER/_gathered-KEY/, a file a bucket, and a mark when all are written."""

    folder: str

    def name(self, key: str) -> str:
        """The name of the folder with this key; the phases behind are told it."""
        return f"_gathered-{key}"

    def bucket(self, name: str, bucket: int) -> str:
        """The file of a bucket."""
        return join(self.folder, name, f"bucket-{bucket:06d}.parquet")

    def read(self, name: str, bucket: int) -> "pa.Table":
        """The people of a bucket: whole identities, by identity and person_id."""
        return read_table(self.bucket(name, bucket))

    def is_done(self, name: str) -> bool:
        """Whether every bucket was written."""
        return exists(self._done(name))

    def finish(self, name: str) -> None:
        """Marks that every bucket is written."""
        write_bytes(self._done(name), b"")

    def keep_only(self, name: str) -> None:
        """Removes all other folders."""
        for other in self._names():
            if other != name:
                remove(join(self.folder, other), recursive=True)

    def paths(self) -> list[str]:
        """The files of all buckets, in order."""
        return [
            join(self.folder, name, file)
            for name in self._names()
            for file in list_names(join(self.folder, name))
            if _BUCKET.fullmatch(file)
        ]

    def tables(self, columns: Sequence[str]) -> Iterator["pa.Table"]:
        """The wanted columns of every bucket."""
        for path in self.paths():
            yield read_known(path, columns)

    def _names(self) -> list[str]:
        return [name for name in list_names(self.folder) if name.startswith("_gathered-")]

    def _done(self, name: str) -> str:
        return join(self.folder, name, "_done")


@dataclass(frozen=True)
class MeasuredRows:
    """What stages measured: FOLDER/_measured/STAGE-HASH/ROWS.parquet, below the folder of a phase."""

    folder: str

    def path(self, stage: str, rows: str) -> str:
        """The file of a stage (`NAME-HASH`) for a set of rows, by the hash of their source_keys."""
        return join(self.folder, _MEASURED, stage, f"{rows}.parquet")

    def paths(self) -> list[str]:
        """All files, by stage."""
        top = join(self.folder, _MEASURED)
        return [
            join(top, stage, name)
            for stage in list_names(top)
            for name in list_names(join(top, stage))
            if name.endswith(".parquet") and not name.startswith(".")
        ]

    def beside(self, path: str, rows: str) -> str:
        """The file of the same stage as `path`, for another set of rows."""
        return join(path.rpartition("/")[0], f"{rows}.parquet")

    def rows_of(self, path: str) -> str:
        """The hash of rows that a file is named by."""
        return path.rpartition("/")[2].removesuffix(".parquet")


@dataclass(frozen=True)
class AnswerFiles:
    """What models answered: FOLDER/_answers/*.jsonl, below the folder of a phase."""

    phase: str

    @property
    def folder(self) -> str:
        """The folder of the files."""
        return join(self.phase, _ANSWERS)

    def path(self, name: str) -> str:
        """A file by its name without suffix."""
        return join(self.folder, f"{name}.jsonl")

    def names(self) -> list[str]:
        """Names without suffix of all whole files."""
        names = (name for name in list_names(self.folder) if name.endswith(".jsonl"))
        return [name.removesuffix(".jsonl") for name in names if not name.startswith(".")]

    def remove_beside(self) -> None:
        """Removes everything else of the phase's folder: what a model answered is not asked again."""
        for name in list_names(self.phase):
            if name != _ANSWERS:
                remove(join(self.phase, name), recursive=True)
