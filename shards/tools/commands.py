"""What the actions of `persona shards` share: options, limits, results as lines or JSON, errors."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edges.command_line import Run, add_command, refused
from shards.format.dataset import DatasetError
from shards.tools.copying import MAX_MIB, MAX_SAMPLES

_SMALL_BYTES = 2**30  # of shards: less is read sooner than processes start


class UsageError(Exception):
    """What was asked for makes no sense; `str()` is one line."""


def add_action(commands: Any, name: str, run: Run, says: str, example: str) -> argparse.ArgumentParser:
    """A command whose errors (UsageError 2, DatasetError 1) are one line, and that has --json."""
    parser = add_command(commands, name, lambda options: _guarded(run, options), says, example)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _guarded(run: Run, options: argparse.Namespace) -> int:
    """Errors of the tools as one line and an exit code."""
    try:
        return run(options)
    except UsageError as error:
        return refused(error)
    except DatasetError as error:
        return refused(error, 1)


def processes_option(parser: argparse.ArgumentParser) -> None:
    """How many processes read shards."""
    parser.add_argument(
        "--processes", type=int, metavar="N", help="default: one for each CPU where there is much to read"
    )


def limit_options(parser: argparse.ArgumentParser) -> None:
    """How large shards become."""
    parser.add_argument(
        "--max-samples", type=int, default=MAX_SAMPLES, metavar="N", help="of a shard (default %(default)s)"
    )
    parser.add_argument(
        "--max-mib", type=float, default=MAX_MIB, metavar="N", help="of a shard (default %(default)s)"
    )


def limits_of(options: argparse.Namespace) -> dict[str, int]:
    """max_samples and max_bytes of shards. Raises UsageError."""
    if options.max_samples < 1 or options.max_mib <= 0:
        raise UsageError("--max-samples and --max-mib must be positive")
    return {"max_samples": options.max_samples, "max_bytes": max(int(options.max_mib * 2**20), 1)}


def processes_of(options: argparse.Namespace) -> int:
    """The number of processes: as asked for, else by the bytes of the shards. Raises UsageError."""
    if options.processes is not None:
        if options.processes < 1:
            raise UsageError(f"--processes {options.processes}: at least 1")
        return int(options.processes)
    if "://" in options.folder:
        return os.cpu_count() or 1
    size = sum(path.stat().st_size for path in Path(options.folder).glob("*.tar"))
    return 1 if size < _SMALL_BYTES else os.cpu_count() or 1


def say_written(options: argparse.Namespace, out: str, about: dict[str, Any]) -> int:
    """Prints what a new dataset holds. Returns 0."""
    counts = {name: about[name] for name in ("groups", "photos", "identities", "bytes")}
    counts |= {"out": out, "shards": len(about["shards"])}
    say(
        options,
        counts,
        [f"{out}: {about['groups']} groups, {about['photos']} photos, {counts['shards']} shards"],
    )
    return 0


def say(options: argparse.Namespace, found: dict[str, Any], lines: Any) -> None:
    """Prints the result: as JSON, or lines for people."""
    if options.json:
        print(json.dumps(found))
        return
    for line in lines:
        print(line)


def progress_of(options: argparse.Namespace) -> Callable[[int, int], None] | None:
    """Shows "3 of 10" to people at a terminal; None for others."""
    if options.json or not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        print(f"\r{done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return show


def folder_of(folder: str) -> str:
    """A URL, or a local folder that is there. Raises UsageError."""
    if "://" not in folder and not Path(folder).is_dir():
        raise UsageError(f"{folder}: no such folder")
    return folder


def on_disk(path: str) -> str:
    """The path. Raises UsageError where it is a URL."""
    if "://" in path:
        raise UsageError(f"{path}: must be a path on a disk; a URL can be read, verified and forgotten from")
    return path
