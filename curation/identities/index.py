"""The identity index: who was whom in earlier collections, so that a new one extends them.

A working file, apart from every shard: it holds embeddings, which are never packed, and forgets those of a
collection `index_days` after they came in. An identity is frozen once given. Two that turn out to be one are
joined by an entry of merges.json, never by rewriting, so that it can be reverted.

Files: FOLDER/index.json (format, embedder, index_days), FOLDER/faces-KEY.parquet (one addition: person_id,
identity, embedding ...; the footer holds its day, and how alike strangers on its photos were),
FOLDER/merges.json (curation/identities/merges.py).
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError
from curation.fingerprint import fingerprint_rows
from curation.identities.faces import Collector, FaceRows
from curation.identities.merges import Merges, read_merges
from curation.identities.vectors import Vectors
from curation.run_tables import read_known
from curation.storage import (
    exists,
    join,
    list_names,
    parquet_footer,
    read_bytes,
    remove,
    write_bytes,
    write_table,
)

FORMAT = 1
_FILE = "index.json"
_DAY = b"persona.day"
_STRANGERS = b"persona.strangers"
_MAY_BE_NULL = ("hint", "collection")
_NUMBER_BYTES = 4  # of a float32
_THOUSANDTHS = 1000  # cosines of strangers are counted in these
_FACES = pa.schema(
    [
        ("person_id", pa.string()),
        ("identity", pa.string()),
        ("hint", pa.string()),
        ("collection", pa.string()),
        ("seed", pa.bool_()),
        ("embedding", pa.binary()),
    ]
)


def new_index(folder: str, embedder: str, embedder_name: str, days: int) -> None:
    """Makes an index without faces."""
    about = {"format": FORMAT, "embedder": embedder, "embedder_name": embedder_name, "index_days": days}
    write_bytes(join(folder, _FILE), (json.dumps(about, indent=1) + "\n").encode())


def is_index(folder: str) -> bool:
    """Whether an index lies in a folder."""
    return exists(join(folder, _FILE))


class IdentityIndex:
    """An index in a folder (path or URL). Raises ConfigError where the folder holds something else."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        path = join(folder, _FILE)
        if not is_index(folder):
            raise ConfigError(f"{folder}: is no identity index (it has no index.json)")
        try:
            about = json.loads(read_bytes(path))
            self.embedder: str = about["embedder"]
            self.embedder_name: str = about["embedder_name"]
            known = about["format"] == FORMAT
            self.days: int = about["index_days"] if "index_days" in about else _default_days()
            if type(self.days) is not int or self.days < 1:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path}: is not the index.json of an identity index") from None
        if not known:
            raise ConfigError(f"{path}: format {about['format']!r} is not {FORMAT}; another version wrote it")

    @property
    def merges(self) -> Merges:
        """The joins of identities, as they stand now."""
        return read_merges(self.folder)

    def aliases(self) -> dict[str, str]:
        """{identity: the one that it is now part of}, of the accepted joins."""
        return self.merges.aliases()

    def additions(self) -> list[str]:
        """Names of the files of faces."""
        return [name for name in list_names(self.folder) if name.startswith("faces-")]

    def day_of(self, name: str) -> date:
        """When a file of faces came in. Raises ConfigError where it does not say so."""
        path = join(self.folder, name)
        with _named_faults(path):
            metadata = parquet_footer(path).metadata or {}
        try:
            return date.fromisoformat(metadata[_DAY].decode())
        except (KeyError, ValueError):
            raise ConfigError(f"{path}: does not say on which day its faces came in") from None

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A file of faces, or these columns of it. Raises ConfigError where it is something else."""
        return _read_faces(join(self.folder, name), _FACES, columns)

    def keep_for(self, days: int) -> None:
        """Writes down after how many days embeddings expire, for commands that know of no pipeline."""
        if days == self.days:
            return
        path = join(self.folder, _FILE)
        about = {**json.loads(read_bytes(path)), "index_days": days}
        write_bytes(path, (json.dumps(about, indent=1) + "\n").encode())
        self.days = days

    def expired(self, today: date | None = None) -> list[str]:
        """Names of the files of faces that came in more than `days` days ago."""
        limit = (today or datetime.now(UTC).date()) - timedelta(days=self.days)
        return [name for name in self.additions() if self.day_of(name) < limit]

    def expire(self, days: int, today: date | None = None) -> list[str]:
        """Deletes the files of faces older than `days`, which hold from now on. Returns their names."""
        self.keep_for(days)
        old = self.expired(today)
        for name in old:
            remove(join(self.folder, name))
        return old

    def load(self, into: Collector) -> dict[str, str]:
        """Adds all faces, and the cosines of strangers, to `into`.

        Returns {person_id: the identity first given}, aliases not followed.
        """
        given: dict[str, str] = {}
        bytes_each: int | None = None
        for name in self.additions():
            table = self.read(name)
            into.strangers.append(self._strangers_of(name))
            # A kill between two writes may have put a face into two files.
            new = [person_id not in given for person_id in table["person_id"].to_pylist()]
            rows = table.filter(pa.array(new, pa.bool_())).to_pydict()
            if not rows["person_id"]:
                continue
            given |= dict(zip(rows["person_id"], rows["identity"], strict=True))
            bytes_each = bytes_each or len(rows["embedding"][0])
            if bytes_each != len(rows["embedding"][0]):
                raise ConfigError(f"{join(self.folder, name)}: its embeddings are not as long as the others")
            count = len(rows["person_id"])
            into.add(
                FaceRows(rows["person_id"], [-1] * count, rows["hint"], rows["collection"], rows["seed"]),
                np.stack([np.frombuffer(data, "<f4") for data in rows["embedding"]]),
            )
        return given

    def _strangers_of(self, name: str) -> np.ndarray:
        """float64 [pairs]: the cosines that `add` was given; none in a file of an earlier version."""
        path = join(self.folder, name)
        written = (parquet_footer(path).metadata or {}).get(_STRANGERS, b"[]")
        try:
            counted = np.array(json.loads(written), np.int64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            counted = np.array([[0, -1]])
        if (np.abs(counted[:, 0]) > _THOUSANDTHS).any() or (counted[:, 1] < 0).any():
            raise ConfigError(f"{path}: is damaged: its cosines of strangers are no counts of thousandths")
        return np.repeat(counted[:, 0] / _THOUSANDTHS, counted[:, 1])

    def add(
        self, rows: FaceRows, vectors: Vectors, at: np.ndarray, identities: list[str], strangers: np.ndarray
    ) -> None:
        """Adds the faces `at` these places with their identities; the file appears at once or not at all.

        strangers  cosines between two faces of one photo of this collection. They are kept as counts, so
                   that they tell nothing of anybody and the next collection knows the embedder's errors.
        """
        if not len(at):
            return
        chosen = rows.in_order(at)
        alike, counts = np.unique(np.round(strangers * _THOUSANDTHS).astype(int), return_counts=True)
        counted = json.dumps(list(zip(alike.tolist(), counts.tolist(), strict=True)))
        footer = {_DAY: datetime.now(UTC).date().isoformat(), _STRANGERS: counted}
        table = pa.table(
            {
                "person_id": chosen.person_id,
                "identity": identities,
                "hint": pa.array(chosen.hint, pa.string()),
                "collection": pa.array(chosen.collection, pa.string()),
                "seed": chosen.seed,
                "embedding": [row.astype("<f4").tobytes() for row in vectors.take(at)],
            },
            schema=_FACES.with_metadata(footer),
        )
        name = faces_name(zip(chosen.person_id, identities, strict=True))
        write_table(join(self.folder, name), table)

    def sizes(self) -> dict[str, int]:
        """{identity: faces}, aliases followed."""
        aliases = self.aliases()
        found: dict[str, int] = {}
        for name in self.additions():
            for given in self.read(name, ["identity"])["identity"].to_pylist():
                identity = aliases.get(given, given)
                found[identity] = found.get(identity, 0) + 1
        return found


def _default_days() -> int:
    """Of an index that an earlier version wrote."""
    from curation.settings.identities import IdentitiesSettings  # an index is listed without settings

    return IdentitiesSettings().index_days


def faces_name(rows: Iterable[tuple[str, str]]) -> str:
    """The file of these (person_id, identity): equal rows, equal name."""
    return f"faces-{fingerprint_rows(rows)}.parquet"


@contextmanager
def _named_faults(path: str) -> Iterator[None]:
    """What Parquet finds wrong with the file becomes a ConfigError; a fault of the disk stays one."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(f"{path}: is no Parquet file of faces, or is damaged") from None


def _read_faces(path: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The columns (all of `schema`: None) of a file of faces; embeddings are float32 of one length.

    Raises ConfigError that names the file where a column is absent, of another type, or has no value.
    """
    wanted = schema.names if columns is None else columns
    with _named_faults(path):
        found = parquet_footer(path).schema.to_arrow_schema()
        for name in wanted:
            if name not in found.names or found.field(name).type != schema.field(name).type:
                kind = schema.field(name).type
                raise ConfigError(f"{path}: is no file of faces: it has no column {name} of {kind}")
        table = read_known(path, wanted)
    for name in wanted:
        if name not in _MAY_BE_NULL and table[name].null_count:
            raise ConfigError(f"{path}: is damaged: {name} has no value in some rows")
    if "embedding" in wanted and table.num_rows:
        lengths = pc.unique(pc.binary_length(table["embedding"])).to_pylist()
        if len(lengths) > 1 or lengths[0] == 0 or lengths[0] % _NUMBER_BYTES:
            raise ConfigError(f"{path}: is damaged: its embeddings are no float32 of one length")
    return table
