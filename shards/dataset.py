"""The files that make a folder of shards a dataset: index.parquet, dataset.json, README.md.

`dataset.json` is written last: where it is, the dataset is whole.
"""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.atomic_file import AtomicFile
from shards.sample import SCHEMA_VERSION

INDEX_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("checksum", pa.string()),
    ]
)


def write_index(url: str, tables: Iterable[pa.Table]) -> str:
    """Writes index.parquet, every member of every shard in their order; returns its xxh3-128.

    Takes one table at a time, so an index of any size is written in the memory of one shard's.
    """
    with AtomicFile(url) as file:
        with pq.ParquetWriter(file, INDEX_SCHEMA, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA))
        file.commit()
        return file.checksum


def dataset_bytes(shards: list[dict[str, Any]], index_checksum: str, about: dict[str, Any]) -> bytes:
    """dataset.json: version, counts, the shards with their bytes and checksums, how it was made."""
    record = {
        "format": "persona-shards",
        "schema": SCHEMA_VERSION,
        "shards": shards,
        "groups": sum(shard["groups"] for shard in shards),
        "photos": sum(shard["photos"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "index_checksum": index_checksum,
        **about,
    }
    return (json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def card_bytes(title: str, shards: list[dict[str, Any]], about: dict[str, Any]) -> bytes:
    """README.md: what the dataset holds and how it came to be, for people."""
    groups = sum(shard["groups"] for shard in shards)
    photos = sum(shard["photos"] for shard in shards)
    size = sum(shard["bytes"] for shard in shards)
    licences = "\n".join(f"| {name} | {number} |" for name, number in about["licences"].items())
    models = "\n".join(
        f"| {name} | `{model['sha256'][:12]}` | {model['licence']} |"
        for name, model in about["models"].items()
    )
    per_group = "\n".join(f"| {size_} | {n} |" for size_, n in about["photos_per_group"].items())
    text = f"""# {title}

Groups of photos: each group is one person in one outfit. Made by `persona curate`.

| | |
|---|---|
| groups | {groups} |
| photos | {photos} |
| identities | {about["identities"]} |
| shards | {len(shards)} |
| bytes | {size} |
| schema | {SCHEMA_VERSION} |
| config | `{about["config"]}` |

Photos per group:

| photos | groups |
|---|---|
{per_group}

Licences stated by the collection, by photo:

| licence | photos |
|---|---|
{licences}

Models that decided, by sha256:

| model | sha256 | licence |
|---|---|---|
{models}

The shards are WebDataset tars; `index.parquet` gives shard, offset, length and xxh3-128 checksum of
every member, `dataset.json` those of every shard. The photos show real people: use them only as their
licences and the people on them permit, and drop a person who asks for it.
"""
    return text.encode()
