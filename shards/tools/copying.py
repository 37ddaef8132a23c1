"""A new dataset from samples of others: planned from their indexes, written shard by shard, resumable.

    OUT/.unfinished/plan.json       what is being made, of which parents
    OUT/.unfinished/000003.arrow    the index of a shard that is whole
    OUT/7e04b1c9-000003.tar         the shard; the name begins with a hash of the lineage
    OUT/dataset.json                comes last; then .unfinished goes

Which sample goes where follows from the indexes alone, so a run that was killed is gone on with by the
same call, and ends in the same bytes. Contents of members are copied as they are and compared with
their checksums on the way; headers are written anew.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shards.format.atomic_file import AtomicFile, write_whole
from shards.format.card import CARD, card_files
from shards.format.contents import Census
from shards.format.dataset import (
    DatasetError,
    dataset_bytes,
    prefix_of,
    read_json,
    remove_temporaries,
    shard_name,
)
from shards.format.dataset_tombstones import DatasetTombstones
from shards.format.dataset_writer import FACETS, IndexedShard, WrittenShard
from shards.format.index import IPC_ALONE, IndexWriter
from shards.reading.folder import Sample
from shards.tools.dataset_rows import DatasetRows, numbers_of, read_ahead

MAX_SAMPLES = 1000
MAX_MIB = 512
_HEADER = 512
_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Copy:
    """What is copied, in this order.

    source, number   int64 [k]: which dataset, which of its samples
    operation        of `lineage` in dataset.json, with its settings
    about            further keys of dataset.json, such as `history`
    through          what is done to the samples of a shard, in their order; members may be added
    added            int64 [k], bytes of members that it adds to each; None: none
    """

    sources: Sequence[DatasetRows]
    source: np.ndarray
    number: np.ndarray
    operation: Mapping[str, Any]
    about: Mapping[str, Any]
    through: Callable[[Iterator[Sample]], Iterator[Sample]] = iter
    added: np.ndarray | None = None


def copy_samples(
    copy: Copy,
    out: str,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_MIB * 2**20,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes a dataset, or what a killed call left to do of it. Returns its dataset.json.

    Raises DatasetError where OUT holds something else, or a source is damaged; ValueError for limits
    below 1.
    """
    if max_samples < 1 or max_bytes < 1:
        raise ValueError(f"a shard holds at least one sample and one byte: {max_samples}, {max_bytes}")
    parents = [source.as_parent() for source in copy.sources]
    lineage = {
        **copy.operation, "max_samples": max_samples, "max_bytes": max_bytes, "parents": parents,
    }  # fmt: skip
    folder = Path(out)
    done = _begin(folder, lineage)
    if done is not None:
        return done
    cuts = _cuts(_sizes(copy), max_samples, max_bytes)
    prefix = prefix_of(lineage)
    for shard in range(len(cuts) - 1):
        part, name = folder / _UNFINISHED / f"{shard:06d}.arrow", shard_name(shard, prefix)
        if not (part.exists() and (folder / name).exists()):
            _write_part(part, *_write_shard(copy, folder, name, shard, cuts[shard], cuts[shard + 1]))
        if progress is not None:
            progress(shard + 1, len(cuts) - 1)
    return _finish(copy, folder, len(cuts) - 1, lineage)


def _begin(folder: Path, lineage: Mapping[str, Any]) -> dict[str, Any] | None:
    """Makes the folder ready. Returns dataset.json where this very dataset is already there."""
    plan = folder / _UNFINISHED / "plan.json"
    wanted = json.loads(json.dumps(lineage))
    if (folder / "dataset.json").exists():
        about = read_json(folder / "dataset.json")
        if about.get("lineage") != wanted:
            raise DatasetError(f"{folder}: already holds a dataset")
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
        remove_temporaries(folder)
        return dict(about)
    if plan.exists():
        if read_json(plan) != wanted:
            raise DatasetError(
                f"{folder}: holds unfinished work of another command; delete the folder or finish it"
            )
        remove_temporaries(folder)
        remove_temporaries(plan.parent)
        for path in folder.glob("*.tar"):
            if not path.name.startswith(prefix_of(lineage)):  # of a version that named shards otherwise
                path.unlink()
        return None
    left = [path for path in folder.glob("*") if path != plan.parent] if folder.exists() else []
    if left:
        raise DatasetError(f"{folder}: is not empty ({left[0].name}); name a folder that is new")
    plan.parent.mkdir(parents=True, exist_ok=True)
    write_whole(plan, json.dumps(lineage).encode())
    return None


def _sizes(copy: Copy) -> np.ndarray:
    """int64 [k]: bytes that each sample takes up in a shard, but for the headers of very long names."""
    per_source = [_sample_sizes(source.table) for source in copy.sources]
    sizes = np.zeros(len(copy.source), np.int64)
    for number, known in enumerate(per_source):
        of_source = copy.source == number
        sizes[of_source] = known[copy.number[of_source]]
    return sizes if copy.added is None else sizes + copy.added


def _sample_sizes(table: pa.Table) -> np.ndarray:
    sizes = [np.zeros(0, np.int64)]
    for chunk in table.column("members").chunks:
        starts = numbers_of(chunk.offsets)
        lengths = numbers_of(chunk.flatten().field("length"))
        total = np.concatenate([[0], np.cumsum(_HEADER + lengths + -lengths % _HEADER)])
        sizes.append(np.diff(total[starts - starts[0]]))
    return np.concatenate(sizes)


def _cuts(sizes: np.ndarray, max_samples: int, max_bytes: int) -> list[int]:
    """Where shards begin, and the end of the last. A sample larger than a shard fills one by itself."""
    cuts = [0]
    taken = 0
    for place, size in enumerate(sizes.tolist()):
        if place > cuts[-1] and (place - cuts[-1] >= max_samples or taken + size > max_bytes):
            cuts.append(place)
            taken = 0
        taken += size
    return [*cuts, len(sizes)] if len(sizes) else [0]


def _write_shard(
    copy: Copy, folder: Path, name: str, shard: int, start: int, stop: int
) -> tuple[WrittenShard, Census]:
    census = Census()
    with IndexedShard(str(folder), name, shard, census) as writer:
        places = [(copy.sources[copy.source[n]], int(copy.number[n])) for n in range(start, stop)]
        for (source, number), sample in zip(places, copy.through(read_ahead(places)), strict=True):
            writer.add(
                sample.key, sample.members, {name: source.table[name][number].as_py() for name in FACETS}
            )
        return writer.close(), census


def _write_part(path: Path, shard: WrittenShard, census: Census) -> None:
    part = {"entry": shard.entry, "licences": census.licences}
    table = shard.rows.replace_schema_metadata({"part": json.dumps(part)})
    with AtomicFile(str(path)) as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        file.commit()


def _finish(copy: Copy, folder: Path, shards: int, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Index, tombstones, card, dataset.json."""
    census, entries = Census(), []
    with IndexWriter(str(folder)) as index:
        for shard in range(shards):
            path = str(folder / _UNFINISHED / f"{shard:06d}.arrow")
            table = pa.ipc.open_file(path, options=IPC_ALONE).read_all()
            part = json.loads(table.schema.metadata[b"part"])
            entries.append(part["entry"])
            for key, photos in zip(table["key"].to_pylist(), table["people"].to_pylist(), strict=True):
                census.add(key, photos, ())
            census.licences += Counter(part["licences"])
            index.write(table.replace_schema_metadata())
        hashes = index.close()
    about = {
        **_shared([source.about for source in copy.sources]),
        **census.to_json(),
        **copy.about,
        "lineage": dict(lineage),
        "index": hashes,
        "card": list(CARD),
    }
    tombstones = DatasetTombstones()
    for source in copy.sources:
        tombstones |= source.tombstones()
    if len(tombstones):
        about["tombstones"] = write_tombstones(str(folder), "tombstones.txt", tombstones)
    title = str(about.get("pipeline") or "Dataset")
    for name, content in card_files(title, entries, about).items():
        write_whole(folder / name, content)
    data = dataset_bytes(entries, about)
    write_whole(folder / "dataset.json", data)
    shutil.rmtree(folder / _UNFINISHED)
    return dict(json.loads(data))


def write_tombstones(folder: str, name: str, tombstones: DatasetTombstones) -> dict[str, Any]:
    """Writes the file. Returns `tombstones` of dataset.json."""
    with AtomicFile(f"{folder}/{name}") as file:
        file.write(tombstones.to_bytes())
        file.commit()
        return {"name": name, "count": len(tombstones), "checksum": file.checksum}


def _shared(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keys of dataset.json on how it was made that all parents state alike, and the models of all."""
    models: dict[str, Any] = {}
    for about in abouts:
        for name, model in about.get("models", {}).items():
            taken = models.setdefault(name, model)
            if taken != model:
                models[f"{name} {model['sha256'][:12]}"] = model
    shared: dict[str, Any] = {"models": dict(sorted(models.items()))} if models else {}
    for name in ("pipeline", "config"):
        values = {str(about.get(name) or "") for about in abouts}
        if len(values) == 1 and "" not in values:
            shared[name] = values.pop()
    for name in ("latents", "funnel", "settings", "opt_out"):
        value = abouts[0].get(name) if abouts else None
        if value is not None and all(about.get(name) == value for about in abouts):
            shared[name] = value
    return shared
