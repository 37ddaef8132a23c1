"""`persona shards ACTION`: which file here runs which action. A file is imported when it is needed."""

import argparse
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from shards.tools.commands import add_action


class Action(NamedTuple):
    """A file here with `add_options(parser)` and `run(options)`, its line of help, and an example."""

    file: str
    says: str
    example: str


ACTIONS = {
    "index": Action(
        "build_index",
        "make the index of a folder of WebDataset tars, or a lost one of ours",
        "persona shards index /data/some-webdataset",
    ),
    "verify": Action(
        "verify",
        "prove that a dataset is what was written, or name what is not",
        "persona shards verify runs/demo/shards",
    ),
    "stats": Action("stats", "count what a dataset holds", "persona shards stats runs/demo/shards"),
    "cat": Action(
        "cat",
        "print the record of a sample, or get its members",
        "persona shards cat runs/demo/shards b7107ebf3d24952e-a 000.jpg --out photo.jpg",
    ),
    "diff": Action(
        "diff",
        "keys that only one of two datasets has, and members that differ; exit code 1 where there are any",
        "persona shards diff runs/first/shards runs/second/shards",
    ),
    "merge": Action(
        "merge",
        "put datasets together, in the order of their keys",
        "persona shards merge runs/first/shards runs/second/shards --out all",
    ),
    "split": Action(
        "split",
        "cut a dataset into several, with nobody in two of them",
        "persona shards split all --out train held-out --by 0.9,0.1",
    ),
    "reshard": Action(
        "reshard",
        "write a dataset with shards of another size; order and positions of trainings stay",
        "persona shards reshard all --out larger --max-samples 5000 --max-mib 2048",
    ),
    "export": Action(
        "export",
        "write a dataset in a form that other tools want",
        "persona shards export runs/demo/shards --to parquet --out demo-parquet",
    ),
    "forget": Action(
        "forget",
        "take people or photos out of a dataset, in its place; only shards that hold them are rewritten",
        "persona shards forget all --identity b7107ebf3d24952e --photo 9f86d081884c7d65…",
    ),
    "strip": Action(
        "strip",
        "take the metadata off the photos of a dataset, in its place; their pixels stay as they are",
        "persona shards strip runs/demo/shards --dry-run",
    ),
    "credits": Action(
        "credits",
        "author, title, address and licence of every photo, as CC BY asks for them",
        "persona shards credits runs/demo/shards --format markdown --out CREDITS.md",
    ),
    "statement": Action(
        "statement",
        "one page of what is known of a dataset's rights: licences, wishes, filters, biometric data",
        "persona shards statement runs/demo/shards",
    ),
}


def mount(parser: argparse.ArgumentParser, wanted: str) -> Any:
    """Adds the actions, and the options of the one that is wanted; "" for none.

    Each sets `run`, which returns 0, 1 (it ran, the result is bad) or 2 (bad usage). Returns the subparsers,
    for actions on datasets that are made elsewhere.
    """
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        module = f"shards.tools.{action.file}"
        one = add_action(commands, name, partial(_run, module), action.says, action.example)
        if name == wanted:
            import_module(module).add_options(one)
    return commands


def _run(module: str, options: argparse.Namespace) -> int:
    return int(import_module(module).run(options))
