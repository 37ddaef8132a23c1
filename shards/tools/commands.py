"""`persona shards …`: the tools for datasets on the command line. Each is a function of its own file."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edges.command_line import Run, add_command, refused
from shards.format.dataset import DatasetError
from shards.tools.copying import MAX_MIB, MAX_SAMPLES

_SMALL_BYTES = 2**30  # of shards: less is read sooner than processes start


class UsageError(Exception):
    """What was asked for makes no sense; `str()` is one line."""


def mount(parser: argparse.ArgumentParser) -> Any:
    """Adds the commands. Each sets `run`, which returns 0, 1 (it ran, the result is bad) or 2 (bad usage).

    Returns the subparsers, for actions on datasets that are not made here.
    """
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    _add_reading(commands)
    _add_writing(commands)
    return commands


def _add_reading(commands: Any) -> None:
    index = add_action(
        commands, "index", _index,
        "make the index of a folder of WebDataset tars, or a lost one of ours",
        "persona shards index /data/some-webdataset",
    )  # fmt: skip
    index.add_argument("folder", metavar="DIR")
    _processes_option(index)

    verify = add_action(
        commands, "verify", _verify,
        "prove that a dataset is what was written, or name what is not",
        "persona shards verify runs/demo/shards",
    )  # fmt: skip
    verify.add_argument("folder", metavar="DIR", help="a folder, or a URL such as s3://bucket/dataset")
    verify.add_argument("--fast", action="store_true", help="sizes and checksums of whole files only")
    _processes_option(verify)

    stats = add_action(
        commands, "stats", _stats, "count what a dataset holds", "persona shards stats runs/demo/shards"
    )
    stats.add_argument("folder", metavar="DIR")

    cat = add_action(
        commands, "cat", _cat,
        "print the record of a sample, or get its members",
        "persona shards cat runs/demo/shards b7107ebf3d24952e-a 000.jpg --out photo.jpg",
    )  # fmt: skip
    cat.add_argument("folder", metavar="DIR")
    cat.add_argument("key", metavar="KEY")
    cat.add_argument("member", metavar="MEMBER", nargs="?", help="its suffix, as 000.jpg")
    cat.add_argument("--out", metavar="PATH", help="a file for MEMBER, a folder for all members")

    diff = add_action(
        commands, "diff", _diff,
        "keys that only one of two datasets has, and members that differ; exit code 1 where there are any",
        "persona shards diff runs/first/shards runs/second/shards",
    )  # fmt: skip
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")


def _add_writing(commands: Any) -> None:
    merge = add_action(
        commands, "merge", _merge,
        "put datasets together, in the order of their keys",
        "persona shards merge runs/first/shards runs/second/shards --out all",
    )  # fmt: skip
    merge.add_argument("folders", metavar="DIR", nargs="+")
    merge.add_argument("--out", metavar="DIR", required=True)
    merge.add_argument("--on-duplicate", choices=("error", "keep-first"), default="error")
    limit_options(merge)

    split = add_action(
        commands, "split", _split,
        "cut a dataset into several, with nobody in two of them",
        "persona shards split all --out train held-out --by 0.9,0.1",
    )  # fmt: skip
    split.add_argument("folder", metavar="DIR")
    split.add_argument("--out", metavar="DIR", nargs="+", required=True)
    how = split.add_mutually_exclusive_group(required=True)
    how.add_argument("--by", metavar="F,F", help="fractions, one for each OUT, by a hash of the identity")
    how.add_argument("--keys", metavar="FILE", help="keys, one a line, that go to the first of two OUT")
    split.add_argument("--allow-shared-identities", action="store_true", help="with --keys")
    limit_options(split)

    reshard = add_action(
        commands, "reshard", _reshard,
        "write a dataset with shards of another size; order and positions of trainings stay",
        "persona shards reshard all --out larger --max-samples 5000 --max-mib 2048",
    )  # fmt: skip
    reshard.add_argument("folder", metavar="DIR")
    reshard.add_argument("--out", metavar="DIR", required=True)
    limit_options(reshard)

    export = add_action(
        commands, "export", _export,
        "write a dataset in a form that other tools want",
        "persona shards export runs/demo/shards --to parquet --out demo-parquet",
    )  # fmt: skip
    export.add_argument("folder", metavar="DIR")
    export.add_argument(
        "--to", choices=("folders", "parquet", "images"), required=True,
        help="a file a member; Parquet as Hugging Face datasets reads it; WebDataset, a sample a photo",
    )  # fmt: skip
    export.add_argument("--out", metavar="DIR", required=True)

    forget = add_action(
        commands, "forget", _forget,
        "take people or photos out of a dataset, in its place; only shards that hold them are rewritten",
        "persona shards forget all --identity b7107ebf3d24952e --photo 9f86d081884c7d65…",
    )  # fmt: skip
    forget.add_argument("folder", metavar="DIR")
    forget.add_argument("--identity", metavar="ID", nargs="+", action="extend", default=[])
    forget.add_argument("--key", metavar="KEY", nargs="+", action="extend", default=[])
    forget.add_argument(
        "--photo", metavar="PHOTO_ID", nargs="+", action="extend", default=[], help="sha256 of its bytes"
    )
    forget.add_argument(
        "--from", metavar="FILE", dest="file",
        help="lines identity:ID, key:KEY, photo:PHOTO_ID or, as in an opt-out list, sha256:PHOTO_ID",
    )  # fmt: skip
    forget.add_argument("--tombstones", metavar="FILE", help="of another dataset: forget here what it forgot")
    forget.add_argument(
        "--min-photos", type=int, default=2, metavar="N",
        help="a group that loses a photo and keeps fewer goes as a whole (default %(default)s)",
    )  # fmt: skip
    forget.add_argument("--missing-ok", action="store_true", help="ids that are not there are no error")
    forget.add_argument("--dry-run", action="store_true", help="tell what would go")
    forget.add_argument(
        "--delete-side-files", action="store_true",
        help="delete what other programs wrote beside the shards, where it tells of shards that are no more",
    )  # fmt: skip
    forget.add_argument(
        "--break-lock", action="store_true", help="of a URL: go on where another process died at it"
    )


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


def _processes_option(parser: argparse.ArgumentParser) -> None:
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


def _index(options: argparse.Namespace) -> int:
    from shards.tools.build_index import build_index

    folder = folder_of(on_disk(options.folder))
    about = build_index(folder, processes=_processes(options), progress=progress_of(options))
    counts = {name: about[name] for name in ("groups", "photos", "bytes")} | {"shards": len(about["shards"])}
    say(
        options,
        counts,
        [f"{counts['groups']} samples in {counts['shards']} shards, {counts['photos']} photos"],
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from shards.tools.side_files import stale_line
    from shards.tools.verify import verify

    report = verify(
        folder_of(options.folder),
        fast=options.fast,
        processes=_processes(options),
        progress=progress_of(options),
    )
    read = f"{report.shards} shards, {report.members} members, {report.bytes} bytes"
    state = f"{len(report.problems)} problems" if report.problems else "all as it was written"
    stale = [stale_line(report.stale_side_files)] if report.stale_side_files else []
    say(options, report.to_json(), [*map(str, report.problems), f"{read}: {state}", *stale])
    return 0 if report.ok else 1


def _stats(options: argparse.Namespace) -> int:
    from shards.tools.stats import stats, stats_lines

    found = stats(folder_of(options.folder))
    say(options, found, stats_lines(found))
    return 0


def _cat(options: argparse.Namespace) -> int:
    from shards.tools.cat import find_sample, member_of, record_of, write_members

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


def _diff(options: argparse.Namespace) -> int:
    from shards.tools.diff import diff

    found = diff(folder_of(options.a), folder_of(options.b))
    say(options, found.to_json(), found.lines())
    return 1 if found else 0


def _merge(options: argparse.Namespace) -> int:
    from shards.tools.merge import merge

    folders = [folder_of(folder) for folder in options.folders]
    about = merge(
        folders,
        on_disk(options.out),
        on_duplicate=options.on_duplicate,
        progress=progress_of(options),
        **limits_of(options),
    )
    return _say_written(options, options.out, about)


def _split(options: argparse.Namespace) -> int:
    from shards.tools.split import split_by_identity, split_by_keys

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
        _say_written(options, out, about)
    return 0


def _reshard(options: argparse.Namespace) -> int:
    from shards.tools.reshard import reshard

    folder = folder_of(options.folder)
    about = reshard(folder, on_disk(options.out), progress=progress_of(options), **limits_of(options))
    return _say_written(options, options.out, about)


def _export(options: argparse.Namespace) -> int:
    from shards.tools.export import export

    written = export(folder_of(options.folder), on_disk(options.out), options.to, progress_of(options))
    say(options, written, [f"{options.out}: {written['samples']} samples, {written['photos']} photos"])
    return 0


def _forget(options: argparse.Namespace) -> int:
    from shards.format.tombstones import Tombstones
    from shards.tools.forget import forget
    from shards.tools.forget_plan import Request, read_request
    from shards.tools.side_files import stale_line

    folder = folder_of(options.folder)
    photos = [photo.lower() for photo in options.photo]
    request = Request(frozenset(options.identity), frozenset(options.key), frozenset(photos))
    if options.file is not None:
        request = request | read_request(options.file)
    if options.tombstones is not None:
        request = replace(request, tombstones=Tombstones.read(options.tombstones))
    if options.min_photos < 1:
        raise UsageError(f"forget --min-photos {options.min_photos}: at least 1")
    done = forget(
        folder,
        request,
        min_photos=options.min_photos,
        missing_ok=options.missing_ok,
        dry_run=options.dry_run,
        break_lock=options.break_lock,
        delete_side_files=options.delete_side_files,
        progress=progress_of(options),
    )
    would = "would be " if options.dry_run else ""
    says = (
        f"revision {done.revision}: {done.photos} photos {would}forgotten, {done.groups_dropped} groups "
        f"dropped, {done.groups_edited} groups with fewer photos, {done.shards_rewritten} shards "
        f"{would}rewritten"
    )
    stale = [stale_line(done.stale_side_files)] if done.stale_side_files else []
    say(options, asdict(done), [says, *stale])
    return 1 if stale else 0


def _say_written(options: argparse.Namespace, out: str, about: dict[str, Any]) -> int:
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


def _processes(options: argparse.Namespace) -> int:
    if options.processes is not None:
        if options.processes < 1:
            raise UsageError(f"--processes {options.processes}: at least 1")
        return int(options.processes)
    if "://" in options.folder:
        return os.cpu_count() or 1
    size = sum(path.stat().st_size for path in Path(options.folder).glob("*.tar"))
    return 1 if size < _SMALL_BYTES else os.cpu_count() or 1


def limits_of(options: argparse.Namespace) -> dict[str, int]:
    """max_samples and max_bytes of shards. Raises UsageError."""
    if options.max_samples < 1 or options.max_mib <= 0:
        raise UsageError("--max-samples and --max-mib must be positive")
    return {"max_samples": options.max_samples, "max_bytes": max(int(options.max_mib * 2**20), 1)}


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
