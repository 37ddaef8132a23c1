"""Datasets put together, in the order of their keys: A and B give the same bytes as B and A."""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from shards.format.dataset import DatasetError
from shards.format.dataset_tombstones import DatasetTombstones
from shards.tools.commands import folder_of, limit_options, limits_of, on_disk, progress_of, say_written
from shards.tools.copying import MAX_MIB, MAX_SAMPLES, Copy, copy_samples
from shards.tools.dataset_rows import DatasetRows

OnDuplicate = Literal["error", "keep-first"]
_NAMED = 3  # of a long list, in a message


def merge(
    folders: Sequence[str],
    out: str,
    *,
    on_duplicate: OnDuplicate = "error",
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_MIB * 2**20,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes a dataset of all samples of `folders`. Returns its dataset.json.

    on_duplicate   a key that two datasets have: `error`, or `keep-first` takes that of the first one named
    Raises DatasetError, also where one dataset holds what another one has forgotten.
    """
    sources = [DatasetRows(folder) for folder in folders]
    keys: list[tuple[str, int, int]] = []
    for number, source in enumerate(sources):
        keys += [(key, number, sample) for sample, key in enumerate(source.all_keys())]
    keys.sort()
    again = [here[0] for before, here in pairwise(keys) if before[0] == here[0]]
    if again and on_duplicate == "error":
        raise DatasetError(
            f"{len(set(again))} keys are in more than one dataset: {', '.join(again[:_NAMED])}"
            f"{' …' if len(again) > _NAMED else ''}; --on-duplicate keep-first takes them from the first"
        )
    kept = [here for place, here in enumerate(keys) if place == 0 or keys[place - 1][0] != here[0]]
    _check_forgotten(sources)
    _check_latents(sources)
    if on_duplicate == "error":  # then their order says nothing
        place = {number: rank for rank, number in enumerate(_by_content(sources))}
        sources = [sources[number] for number in _by_content(sources)]
        kept = [(key, place[source], sample) for key, source, sample in kept]
    copy = Copy(
        sources,
        np.array([source for _, source, _ in kept], np.int64),
        np.array([sample for _, _, sample in kept], np.int64),
        {"operation": "merge", "on_duplicate": on_duplicate},
        {},
    )
    return copy_samples(copy, out, max_samples, max_bytes, progress)


def _by_content(sources: Sequence[DatasetRows]) -> list[int]:
    """Numbers of the sources in an order that their contents give."""
    return sorted(
        range(len(sources)),
        key=lambda number: [shard["checksum"] for shard in sources[number].about["shards"]],
    )


def _check_latents(sources: Sequence[DatasetRows]) -> None:
    """A dataset's latents are all of one VAE and one choice of sizes."""
    stated = [source.about.get("latents") for source in sources]
    other = next((number for number, latents in enumerate(stated) if latents != stated[0]), None)
    if other is not None:
        raise DatasetError(
            f"{sources[0].folder} and {sources[other].folder} have not the same latents (`latents` of "
            "dataset.json); `persona shards precompute` gives both the same, or merge what they were made of"
        )


def _check_forgotten(sources: Sequence[DatasetRows]) -> None:
    tombstones = DatasetTombstones()
    for source in sources:
        tombstones |= source.tombstones()
    if not len(tombstones):
        return
    for source in sources:
        for number in range(len(source)):
            if any(tombstones.has("photo", id_) for id_ in source.photo_ids(number).values()):
                key = source.row(number)["key"]
                raise DatasetError(
                    f"{source.folder}: {key} holds a photo that another of these datasets has forgotten; "
                    "first: persona shards forget --tombstones"
                )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards merge`."""
    parser.add_argument("folders", metavar="DIR", nargs="+")
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument("--on-duplicate", choices=("error", "keep-first"), default="error")
    limit_options(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    folders = [folder_of(folder) for folder in options.folders]
    about = merge(
        folders,
        on_disk(options.out),
        on_duplicate=options.on_duplicate,
        progress=progress_of(options),
        **limits_of(options),
    )
    return say_written(options, options.out, about)
