"""Which files make up a dataset, as its dataset.json names them, and reading small ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from shards.format.atomic_file import is_temporary
from shards.reading.folder import DatasetError, read_small


def index_name(about: Mapping[str, Any], kind: str) -> str:
    """File name of the index; kind is "parquet" or "arrow". A later revision has another name."""
    for name in about.get("index", {}):
        if name.endswith(f".{kind}"):
            return str(name)
    return f"index.{kind}"


def files_of(about: Mapping[str, Any]) -> set[str]:
    """Names of all files that belong to the dataset."""
    names = {"dataset.json", index_name(about, "parquet"), index_name(about, "arrow"), *card_names(about)}
    names |= {shard["name"] for shard in about["shards"]}
    if "tombstones" in about:
        names.add(about["tombstones"]["name"])
    return names


def unborn_of(about: Mapping[str, Any]) -> set[str]:
    """Names of all files that the next revision may have written, where it did not come about (forget.py)."""
    following = int(about.get("revision", 0)) + 1
    names = {f"{stem_of(shard['name'])}-r{following}.tar" for shard in about["shards"]}
    names |= {f"index-r{following}.{kind}" for kind in ("parquet", "arrow")}
    return {*names, f"tombstones-r{following}.txt"}


def shard_name(number: int, prefix: str = "") -> str:
    """File name of a shard of a new dataset."""
    return f"{prefix}{number:06d}.tar"


def prefix_of(lineage: Mapping[str, Any]) -> str:
    """What the shards' names of a dataset that was made of others begin with: other work, other names.

    Readers that keep copies of shards under their last names would take those of one dataset for those of
    another: of two parts of a split, or of what a folder held before.
    """
    text = json.dumps(lineage, sort_keys=True)
    return f"{xxhash.xxh3_64_hexdigest(text.encode())[:8]}-"


def stem_of(name: str) -> str:
    """A shard's name without .tar and the revision it came with."""
    stem = name.removesuffix(".tar")
    base, dash, revision = stem.rpartition("-r")
    return base if dash and revision.isdecimal() else stem


def card_names(about: Mapping[str, Any]) -> list[str]:
    """File names of its card. Datasets of before have a README.md alone."""
    return list(about.get("card", ["README.md"]))


def is_indexed_as_found(about: Mapping[str, Any]) -> bool:
    """Whether its tars are of others and lie where they were found (`persona shards index`)."""
    return about.get("lineage", {}).get("operation") == "index"


def parent_of(folder: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """What `lineage` says of a dataset that another was made of: xxh3-128 of its dataset.json."""
    data = read_small(folder, "dataset.json")
    said = {name: about[name] for name in ("pipeline", "config") if about.get(name)}
    return {
        "dataset": xxhash.xxh3_128_hexdigest(data),
        "revision": about.get("revision", 0),
        "groups": about["groups"],
        **said,
    }


def read_json(path: Path) -> Any:
    """A JSON file. Raises DatasetError, one line, where it is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from None


def remove_temporaries(folder: Path) -> None:
    """Deletes what a killed writer left: files that had not got their names yet."""
    for path in folder.glob(".*"):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)
