"""Makes the index of a folder of tars: of other people's WebDataset shards, or of ours where it was lost."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shards.format.atomic_file import write_whole
from shards.format.census import Census
from shards.format.dataset import dataset_bytes
from shards.format.dataset_files import index_name, read_json, remove_temporaries
from shards.format.index import IndexWriter
from shards.reading.folder import DatasetError, read_dataset_json
from shards.tools.processes import in_order
from shards.tools.shard_scan import ScannedShard, scan_shard


def build_index(
    folder: str, *, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Writes index.parquet, index.arrow and, where there is none, dataset.json. Returns the latter.

    Where dataset.json is there, its shards must be those that it tells of. Raises DatasetError, one line
    with file and offset, for a tar that readers could not use.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    known = read_dataset_json(root) if (root / "dataset.json").exists() else None
    names = [shard["name"] for shard in known["shards"]] if known else _tars(root)
    remove_temporaries(root)
    census, entries = Census(), []
    hashes: list[np.ndarray] = []
    work = partial(_scan, folder)
    stem = index_name(known or {}, "arrow").removesuffix(".arrow")
    with IndexWriter(folder, stem) as index:
        for number, shard in enumerate(in_order(work, list(enumerate(names)), processes)):
            if known is not None:
                _check_known(root, known["shards"][number], shard.entry)
            entries.append(shard.entry)
            hashes.append(shard.key_hashes)
            census.licences += shard.census.licences
            census.photos_per_group += shard.census.photos_per_group
            census.identities |= shard.census.identities
            index.write(shard.rows)
            if progress is not None:
                progress(number + 1, len(names))
        _check_keys(folder, names, hashes)
        written = index.close()
    counts = census.to_json()
    if known is not None and {**known, **counts, "index": written} == known:
        return known
    about = {**({"lineage": {"operation": "index"}} if known is None else known), **counts}
    data = dataset_bytes(entries, {**about, "index": written})
    write_whole(root / "dataset.json", data)
    return dict(read_json(root / "dataset.json"))


def _tars(root: Path) -> list[str]:
    names = sorted(path.name for path in root.glob("*.tar"))
    if not names:
        raise DatasetError(f"{root}: holds no .tar")
    return names


def _scan(folder: str, shard: tuple[int, str]) -> ScannedShard:
    return scan_shard(str(Path(folder) / shard[1]), shard[0])


def _check_known(root: Path, known: dict[str, Any], found: dict[str, Any]) -> None:
    for name in ("bytes", "checksum", "groups"):
        if known[name] != found[name]:
            raise DatasetError(
                f"{root / known['name']}: {name} {found[name]}, but dataset.json says {known[name]}: "
                "see persona shards verify; without dataset.json, what is there is indexed"
            )


def _check_keys(folder: str, names: list[str], hashes: list[np.ndarray]) -> None:
    """Raises DatasetError where two shards have one key: readers would take them for two samples."""
    together = np.concatenate([*hashes, np.empty(0, np.uint64)])
    values, counts = np.unique(together, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, str] = {}
    for number, (name, mine) in enumerate(zip(names, hashes, strict=True)):
        if suspects.isdisjoint(mine.tolist()):
            continue
        for row in scan_shard(str(Path(folder) / name), number).rows.select(["key", "offset"]).to_pylist():
            if row["key"] in seen:
                other = seen[row["key"]]
                raise DatasetError(
                    f"{folder}/{name}: byte {row['offset']}: sample {row['key']!r} is in {other} too"
                )
            seen[row["key"]] = name
