"""dataset.json: what makes a folder of shards a dataset, and which files it names.

`dataset.json` is written last: where it is, the dataset is whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from shards.format.atomic_file import is_temporary
from shards.format.sample import SCHEMA_VERSION

_COUNTS = ("groups", "photos", "bytes", "revision")
_TEXTS = ("name", "checksum")


class DatasetError(ValueError):
    """A folder that cannot be read as a dataset; `str()` is one line that says why."""


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


def unfinished_files_of(about: Mapping[str, Any]) -> set[str]:
    """Names of all files that an unfinished next revision may have left (tools/forget.py, tools/strip.py)."""
    following = int(about.get("revision", 0)) + 1
    names = {revision_name(shard["name"], following) for shard in about["shards"]}
    names |= {part_name(shard["name"], following) for shard in about["shards"]}
    names |= {f"index-r{following}.{kind}" for kind in ("parquet", "arrow")}
    return {*names, f"tombstones-r{following}.txt"}


def shard_name(number: int, prefix: str = "") -> str:
    """File name of a shard of a new dataset."""
    return f"{prefix}{number:06d}.tar"


def prefix_of(lineage: Mapping[str, Any]) -> str:
    """The beginning of the shards' names of a dataset that was made of others: other work, other names.

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


def revision_name(name: str, revision: int) -> str:
    """File name of a shard as a revision wrote it anew."""
    return f"{stem_of(name)}-r{revision}.tar"


def part_name(name: str, revision: int) -> str:
    """File name of what says that a revision is done with a shard, while it is made."""
    return f"{stem_of(name)}-r{revision}.part"


def card_names(about: Mapping[str, Any]) -> list[str]:
    """File names of its card. Datasets of before have a README.md alone."""
    return list(about.get("card", ["README.md"]))


def is_indexed_as_found(about: Mapping[str, Any]) -> bool:
    """Whether its tars are of others and lie where they were found (`persona shards index`)."""
    return about.get("lineage", {}).get("operation") == "index"


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


def problem_in(about: Any) -> str | None:
    """A problem of a parsed dataset.json, in a few words; None where all that is read of it is sound."""
    if not isinstance(about, dict):
        return "is no JSON object"
    if "shards" not in about:
        return "lacks 'shards'"
    entries = about["shards"]
    if not isinstance(entries, list):
        return f"shards is {_short(entries)}, no list"
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            return f"shards[{number}] is {_short(entry)}, no object"
        wrong = _wrong_in(entry, ("groups",), ("name",))
        if wrong is not None:
            return f"shards[{number}]: {wrong}"
    wrong = _wrong_in(about, ("groups",), ())
    if wrong is not None:
        return wrong
    index = about.get("index", {})
    if not _maps_texts(index):
        return f"index is {_short(index)}, not {{file name: checksum}}"
    tombstones = about.get("tombstones", {"name": "", "checksum": ""})
    if not isinstance(tombstones, dict) or _wrong_in(tombstones, (), ("name", "checksum")) is not None:
        return f"tombstones is {_short(tombstones)}, no {{name, checksum}}"
    replaced = about.get("replaced", [])  # these are deleted: none of them may lie elsewhere
    if not _lists_plain_names(replaced):
        return f"replaced is {_short(replaced)}, no list of plain names"
    card = about.get("card", [])
    if not _lists_plain_names(card):
        return f"card is {_short(card)}, no list of plain names"
    if not isinstance(about.get("latents", {}), dict):
        return f"latents is {_short(about['latents'])}, no object"
    steps = about.get("history", [])
    if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
        return f"history is {_short(steps)}, no list of {{groups, removed}}"
    return None


def _wrong_in(part: Mapping[str, Any], counts: tuple[str, ...], texts: tuple[str, ...]) -> str | None:
    """Keys that must be there, and the types of those that may be."""
    for name in (*counts, *texts):
        if name not in part:
            return f"lacks {name!r}"
    for name in _COUNTS:
        value = part.get(name, 0)
        if not isinstance(value, int) or value < 0:
            return f"{name} is {_short(value)}, no count"
    for name in _TEXTS:
        value = part.get(name, "")
        if not isinstance(value, str) or "/" in value:
            return f"{name} is {_short(value)}, no plain name"
    return None


def _lists_plain_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and "/" not in name for name in value)


def _maps_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and "/" not in name for name, text in value.items()
    )


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, dict)
        and isinstance(step.get("groups"), int)
        and isinstance(step.get("removed"), str)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
