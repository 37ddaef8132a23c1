"""The files that make a folder of shards a dataset: index.parquet, dataset.json, README.md.

`dataset.json` is written last: where it is, the dataset is whole.
"""

import json
from typing import Any

import xxhash

from shards.sample import SCHEMA_VERSION


def dataset_bytes(shards: list[dict[str, Any]], about: dict[str, Any]) -> bytes:
    """dataset.json: version, counts, the shards with their bytes and checksums, how it was made.

    `about` has `index`: {file name: xxh3-128, hex} of the index's two files.
    """
    record = {
        "format": "persona-shards",
        "schema": SCHEMA_VERSION,
        "shards": shards,
        "groups": sum(shard["groups"] for shard in shards),
        "photos": sum(shard["photos"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        **about,
    }
    record["checksum"] = dataset_checksum(record)
    return (json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def dataset_checksum(record: dict[str, Any]) -> str:
    """xxh3-128, hex, of dataset.json without its key `checksum`, as JSON with sorted keys and no blanks.

    So `verify` sees whether anything in it was edited.
    """
    plain = json.loads(json.dumps({**record, "checksum": None}))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass")))


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

The shards are WebDataset tars; the index gives shard, offset, length and xxh3-128 checksum of every
member, `dataset.json` those of every shard. The photos show real people: use them only as their
licences and the people on them permit, and drop a person who asks for it.
"""
    return text.encode()
