"""`persona shards credits` and `statement`: what goes along when a dataset is handed on."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shards.tools.commands import add_action, folder_of


def mount(commands: Any) -> Any:
    """Adds the actions to the subparsers of `persona shards`, and returns them."""
    credits = add_action(
        commands, "credits", _credits,
        "author, title, address and licence of every photo, as CC BY asks for them",
        "persona shards credits runs/demo/shards --format markdown --out CREDITS.md",
    )  # fmt: skip
    credits.add_argument("folder", metavar="DIR")
    credits.add_argument("--format", choices=("csv", "markdown"), default="csv")
    credits.add_argument("--out", metavar="FILE", help="default: printed")

    statement = add_action(
        commands, "statement", _statement,
        "one page of what is known of a dataset's rights: licences, wishes, filters, biometric data",
        "persona shards statement runs/demo/shards",
    )  # fmt: skip
    statement.add_argument("folder", metavar="DIR")
    statement.add_argument("--out", metavar="FILE", help="default: printed")
    return commands


def _credits(options: argparse.Namespace) -> int:
    from shards.tools.credits import credits_of, written

    credits = credits_of(folder_of(options.folder))
    if options.json:
        print(json.dumps({"credits": [asdict(credit) for credit in credits]}))
        return 0
    lines = (f"{line}\n" for line in written(credits, options.format))
    if options.out is None:
        sys.stdout.writelines(lines)
    else:
        with Path(options.out).open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    return 0


def _statement(options: argparse.Namespace) -> int:
    from shards.tools.statement import statement

    page = statement(folder_of(options.folder))
    if options.out is not None:
        Path(options.out).write_text(page, encoding="utf-8")
    else:
        print(json.dumps({"statement": page}) if options.json else page, end="\n" if options.json else "")
    return 0
