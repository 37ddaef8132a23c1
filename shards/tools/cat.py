"""One sample of a dataset: its record, or the bytes of its members."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from shards.format.dataset import DatasetError
from shards.format.members import photo_records
from shards.reading.folder import Sample
from shards.tools.commands import folder_of, say
from shards.tools.dataset_rows import DatasetRows


def find_sample(folder: str, key: str) -> Sample:
    """The sample of a key. Raises DatasetError, one line, where there is none or it is damaged."""
    dataset = DatasetRows(folder)
    number = number_of(dataset, key)
    if number is None:
        raise DatasetError(f"{folder}: no sample {key!r}")
    return dataset.read(number)


def number_of(dataset: DatasetRows, key: str) -> int | None:
    """The number of a key's sample; None where there is none."""
    return next((number for number, name in enumerate(dataset.all_keys()) if name == key), None)


def record_of(sample: Sample) -> dict[str, Any]:
    """The record of a sample's group, those of its photos, and the sizes of its members in bytes."""
    group = _parsed(sample.members.get("json"))
    found: dict[str, Any] = {"key": sample.key, "number": sample.number}
    if group is not None:
        found["group"] = group
    photos = photo_records(sample.members)
    if photos:
        found["photos"] = photos
    return found | {"members": {suffix: len(data) for suffix, data in sample.members.items()}}


def member_of(sample: Sample, suffix: str) -> bytes:
    """One member. Raises DatasetError that lists those there are."""
    if suffix not in sample.members:
        raise DatasetError(f"{sample.key}: no member {suffix!r}; it has {', '.join(sample.members)}")
    return sample.members[suffix]


def write_members(sample: Sample, folder: Path) -> list[Path]:
    """Writes every member as a file of its own, named as in the shard. Returns their paths.

    Raises DatasetError for a name that would lie outside the folder.
    """
    written = []
    for suffix, data in sample.members.items():
        path = folder / safe_name(f"{sample.key}.{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written.append(path)
    return written


def safe_name(name: str) -> str:
    """A member's name as a path inside a folder. Raises DatasetError where it would lead out of it."""
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise DatasetError(f"the name {name[:200]!r} leads out of the folder")
    return name


def _parsed(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards cat`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("member", metavar="MEMBER", nargs="?", help="its suffix, as 000.jpg")
    parser.add_argument("--out", metavar="PATH", help="a file for MEMBER, a folder for all members")


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    sample = find_sample(folder_of(options.folder), options.key)
    if options.member is not None:
        data = member_of(sample, options.member)
        if options.out is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            Path(options.out).write_bytes(data)
    elif options.out is not None:
        written = write_members(sample, Path(options.out))
        say(options, {"written": list(map(str, written))}, map(str, written))
    else:
        record = record_of(sample)
        say(options, record, [json.dumps(record, indent=1, ensure_ascii=False)])
    return 0
