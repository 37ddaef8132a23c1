"""A dataset cut into several, so that nobody is in two of them."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from shards.format.dataset import DatasetError
from shards.format.members import identity_of
from shards.tools.commands import (
    UsageError,
    folder_of,
    limit_options,
    limits_of,
    on_disk,
    progress_of,
    say_written,
)
from shards.tools.copying import MAX_MIB, MAX_SAMPLES, Copy, copy_samples
from shards.tools.dataset_rows import DatasetRows


def split_by_identity(
    folder: str,
    outs: Sequence[str],
    fractions: Sequence[float],
    *,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_MIB * 2**20,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes a dataset for each fraction. Returns their dataset.json.

    A hash of the identity says into which one its groups go: the same one next time, whatever else the
    dataset then holds. Raises ValueError for fractions that are not positive or do not add up to 1.
    """
    if len(fractions) != len(outs) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"{len(outs)} positive fractions that add up to 1 are wanted, not {list(fractions)}")
    source = DatasetRows(folder)
    ends = np.cumsum(fractions)[:-1]
    part = np.array([np.searchsorted(ends, _share(key), side="right") for key in source.all_keys()], np.int64)
    operation = {"operation": "split", "by": "identity", "fractions": [float(value) for value in fractions]}
    return _write(source, outs, part, operation, max_samples, max_bytes, progress)


def split_by_keys(
    folder: str,
    outs: Sequence[str],
    keys: Iterable[str],
    *,
    allow_shared: bool = False,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_MIB * 2**20,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes the samples with these keys to the first of two folders, all others to the second.

    Raises DatasetError for a key that is not there, and, unless `allow_shared`, where a person would be
    in both.
    """
    if len(outs) != 2:
        raise ValueError(f"split by keys writes two datasets, not {len(outs)}")
    source = DatasetRows(folder)
    wanted = set(keys)
    all_keys = list(source.all_keys())
    missing = sorted(wanted - set(all_keys))
    if missing:
        raise DatasetError(f"{folder}: {len(missing)} of the keys are not there, as {missing[0]}")
    part = np.array([key not in wanted for key in all_keys], np.int64)
    here = {identity_of(key) for key in wanted}
    shared = sorted({identity_of(key) for key in all_keys if key not in wanted} & here)
    if shared and not allow_shared:
        raise DatasetError(
            f"{folder}: {len(shared)} identities would be in both parts, as {shared[0]}; "
            "name all their keys, or --allow-shared-identities"
        )
    listed = xxhash.xxh3_128_hexdigest("\n".join(sorted(wanted)).encode())
    operation = {"operation": "split", "by": "keys", "keys": listed}
    return _write(source, outs, part, operation, max_samples, max_bytes, progress)


def _write(
    source: DatasetRows,
    outs: Sequence[str],
    part: np.ndarray,
    operation: dict[str, Any],
    max_samples: int,
    max_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    written = []
    for number, out in enumerate(outs):
        numbers = np.flatnonzero(part == number)
        copy = Copy([source], np.zeros(len(numbers), np.int64), numbers, {**operation, "part": number}, {})
        written.append(copy_samples(copy, out, max_samples, max_bytes, progress))
    return written


def _share(key: str) -> float:
    """0 to below 1, even over identities."""
    return float(xxhash.xxh3_64_intdigest(f"split:{identity_of(key)}".encode()) / 2**64)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards split`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--out", metavar="DIR", nargs="+", required=True)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--by", metavar="F,F", help="fractions, one for each OUT, by a hash of the identity")
    how.add_argument("--keys", metavar="FILE", help="keys, one a line, that go to the first of two OUT")
    parser.add_argument("--allow-shared-identities", action="store_true", help="with --keys")
    limit_options(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    folder, limits = folder_of(options.folder), limits_of(options)
    for out in options.out:
        on_disk(out)
    if options.keys is not None:
        if len(options.out) != 2:
            raise UsageError(f"split --keys writes two datasets: --out A B, not {len(options.out)}")
        keys = _lines(options.keys)
        abouts = split_by_keys(
            folder,
            options.out,
            keys,
            allow_shared=options.allow_shared_identities,
            progress=progress_of(options),
            **limits,
        )
    else:
        try:
            fractions = [float(part) for part in options.by.split(",")]
            abouts = split_by_identity(
                folder, options.out, fractions, progress=progress_of(options), **limits
            )
        except DatasetError:
            raise
        except ValueError as error:
            raise UsageError(f"split --by {options.by}: {error}") from None
    for out, about in zip(options.out, abouts, strict=True):
        say_written(options, out, about)
    return 0


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
