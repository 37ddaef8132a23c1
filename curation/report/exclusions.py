"""Photos that a report must not show in any way: of whom opted out, or was forgotten since.

A run that is finished knows the opt-outs of its day. A report is written later, so the list is read anew,
and the tombstones that `persona shards forget` left in the run's dataset count too.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import list_array, string_array
from curation.excluded.address import COLUMNS
from curation.excluded.opt_out import OptOuts
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.storage import join, read_bytes
from shards.format.dataset_tombstones import DatasetTombstones

_OPTED_OUT = "opted_out"


def excluded_photos(run: str, pipeline: PipelineSettings) -> frozenset[str]:
    """photo_ids that are left out of a report, with all copies of them.

    A photo is left out whole when any person on it is of a forgotten identity or group. Raises
    ConfigError when the list of opt-outs cannot be read: then nobody can tell who is on it.
    """
    listed = OptOuts(pipeline.photos.screen)
    forgotten = _forgotten(run)
    found: set[str] = set()
    copies: list[tuple[str, str]] = []
    asks = bool(listed) or len(forgotten) > 0
    names = ["source_key", "file_name", *COLUMNS]
    for table in Run(run).photos_so_far().tables(["photo_id", "phash", "copy_of", "decisions", *names]):
        found.update(_ruled_out(table))
        if "copy_of" in table.column_names:
            pairs = table.select(["photo_id", "copy_of"]).filter(pc.is_valid(table["copy_of"])).to_pylist()
            copies += [(row["photo_id"], row["copy_of"]) for row in pairs]
        if asks:
            for row in table.select(["photo_id", "phash", *names]).to_pylist():
                photo_id = row["photo_id"]
                if photo_id is None:
                    continue
                if listed.covering(row) or forgotten.has("photo", photo_id):
                    found.add(photo_id)
    if len(forgotten):
        found.update(_of_forgotten_people(run, forgotten))
    return frozenset(found | _copies_of(found, copies))


def _ruled_out(table: pa.Table) -> Iterator[str]:
    """Photos that the run itself found on its list."""
    decisions = list_array(table["decisions"])
    opted_out = pc.is_in(decisions.flatten().field("reason"), string_array([_OPTED_OUT]))
    rows = pc.list_parent_indices(decisions).filter(opted_out)
    yield from (name for name in table["photo_id"].take(rows).to_pylist() if name is not None)


def _forgotten(run: str) -> DatasetTombstones:
    tombstones = (Run(run).dataset or {}).get("tombstones")
    if not isinstance(tombstones, dict):
        return DatasetTombstones()
    lines = read_bytes(join(Run(run).shards, str(tombstones["name"]))).decode().splitlines()
    return DatasetTombstones(line for line in lines if line and not line.startswith("#"))


def _of_forgotten_people(run: str, forgotten: DatasetTombstones) -> Iterator[str]:
    for people, kind, column in (
        (Run(run).identities, "identity", "identity"),
        (Run(run).captions, "key", "group"),
    ):
        known: dict[str, bool] = {}
        for table in people.tables(["person_id", column]):
            for row in table.filter(pc.is_valid(table[column])).to_pylist():
                name = row[column]
                if name not in known:
                    known[name] = forgotten.has(kind, name)
                if known[name]:
                    yield row["person_id"][:64]


def _copies_of(excluded: set[str], copies: list[tuple[str, str]]) -> set[str]:
    """Everything that shows the same picture as an excluded photo, copies of copies included."""
    beside: dict[str, list[str]] = {}
    for a, b in copies:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    found: set[str] = set()
    waiting = list(excluded)
    while waiting:
        for other in beside.get(waiting.pop(), []):
            if other not in found and other not in excluded:
                found.add(other)
                waiting.append(other)
    return found
