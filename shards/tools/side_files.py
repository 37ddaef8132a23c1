"""Files of other programs beside shards, which `forget` does not rewrite: indexes of tars, lists of samples.

    000000.tar.idx 000000.idx            members of a tar: Energon, DALI
    .nv-meta/                            shards, counts and keys: Energon
    000000.parquet 000000_stats.json     what was downloaded for a tar, with its addresses: img2dataset
    *.json with "shardlist" in it        shards: wids

A shard that loses a sample gets another name. So such a file is stale where it stands beside, or names, a
shard that the dataset does not have.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from shards.format.dataset import files_of
from shards.reading.folder import read_dataset_json

_BESIDE = re.compile(r"(?P<stem>.+?)(\.tar\.idx|\.idx|\.parquet|_stats\.json)")
_ENERGON = ".nv-meta"
_ENERGON_COUNTS = (".info.json", ".info.yaml")  # what names its shards in all versions
_SHARD_LIST = b'"shardlist"'
_TAR = re.compile(rb"[^\s\"'\\/\x00-\x1f]+\.tar\b")
_MAX_LIST_BYTES = 2**28
_NAMED = 20  # of many, in a line


@dataclass(frozen=True)
class SideFiles:
    """Names in the dataset's folder, sorted.

    names  of all files of other programs, and Energon's folder
    stale  of those that tell of shards that are no more, and so of what was forgotten
    """

    names: list[str]
    stale: list[str]


def side_files(folder: str, about: Mapping[str, Any]) -> SideFiles:
    """Files of other programs beside the shards of a dataset, in a folder or at a URL."""
    system, root = fsspec.core.url_to_fs(folder)
    shards = {shard["name"] for shard in about["shards"]}
    found: dict[str, bool] = {}
    for item in system.ls(root, detail=True, refresh=True):
        name = str(item["name"]).rstrip("/").rpartition("/")[2]
        if name in files_of(about):
            continue
        if name == _ENERGON:
            found[name] = any(
                not _tars_in(system, f"{item['name']}/{counts}") <= shards
                for counts in _ENERGON_COUNTS
                if system.exists(f"{item['name']}/{counts}")
            )
        elif (beside := _BESIDE.fullmatch(name)) and _is_like_one(beside["stem"], shards):
            found[name] = f"{beside['stem']}.tar" not in shards
        elif _is_shard_list(system, item):
            found[name] = not _tars_in(system, item["name"]) <= shards
    return SideFiles(sorted(found), sorted(name for name, is_stale in found.items() if is_stale))


def remove_side_files(folder: str, names: Sequence[str]) -> None:
    """Deletes some of them."""
    system, root = fsspec.core.url_to_fs(folder)
    for path in (f"{root}/{name}" for name in names):
        if "://" not in folder:
            system.rm(path, recursive=True)
        else:  # there rm takes a name with brackets for a pattern
            for file in system.find(path):
                system.rm_file(file)


def stale_side_files(folder: str, *, delete: bool) -> list[str]:
    """Those that are stale beside a dataset that was just changed, by name; none where they are deleted."""
    stale = side_files(folder, read_dataset_json(folder)).stale
    if not delete:
        return stale
    remove_side_files(folder, stale)
    return []


def stale_line(names: Sequence[str]) -> str:
    """One line that names what is stale, and says what to do."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{', '.join(names[:_NAMED])}{more}: files of other programs that still tell of what was forgotten "
        "or moved; delete them (persona shards forget DIR --delete-side-files) or make them anew"
    )


def _is_like_one(stem: str, shards: set[str]) -> bool:
    """Whether a shard could have this name: all but its digits is that of one there is, of any revision."""
    there = {_form(re.sub(r"-r\d+$", "", shard.removesuffix(".tar"))) for shard in shards}
    return not there or _form(re.sub(r"-r\d+$", "", stem)) in there


def _is_shard_list(system: Any, item: Mapping[str, Any]) -> bool:
    name, is_small = str(item["name"]), item["type"] == "file" and item["size"] <= _MAX_LIST_BYTES
    return name.endswith(".json") and is_small and _SHARD_LIST in system.cat_file(name)


def _form(stem: str) -> str:
    return re.sub(r"\d+", "0", stem)


def _tars_in(system: Any, path: str) -> set[str]:
    """Names of tars that a file names anywhere in its bytes."""
    return {name.decode("utf-8", "replace") for name in _TAR.findall(system.cat_file(path))}
