"""dataset.json: what makes a folder of shards a dataset.

`dataset.json` is written last: where it is, the dataset is whole.
"""

import json
from typing import Any

import xxhash

from shards.format.sample import SCHEMA_VERSION


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
