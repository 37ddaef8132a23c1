"""The same samples in the same order, in shards of another size: positions of trainings stay valid."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from shards.tools.commands import folder_of, limit_options, limits_of, on_disk, progress_of, say_written
from shards.tools.copying import Copy, copy_samples
from shards.tools.dataset_rows import DatasetRows


def reshard(
    folder: str,
    out: str,
    *,
    max_samples: int,
    max_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the dataset anew. Returns its dataset.json, which keeps the revisions of the old one."""
    source = DatasetRows(folder)
    kept = {
        str(name): source.about[name] for name in ("revision", "history", "stripped") if name in source.about
    }
    numbers = np.arange(len(source), dtype=np.int64)
    copy = Copy([source], np.zeros(len(source), np.int64), numbers, {"operation": "reshard"}, kept)
    return copy_samples(copy, out, max_samples, max_bytes, progress)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards reshard`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--out", metavar="DIR", required=True)
    limit_options(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    folder = folder_of(options.folder)
    about = reshard(folder, on_disk(options.out), progress=progress_of(options), **limits_of(options))
    return say_written(options, options.out, about)
