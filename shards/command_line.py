"""A command of `persona`, as all its parts make theirs: one line of help, an example, what it runs, and
what is wrong in one line.

It stands here because everything may import `shards`, and this file imports nothing of it.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]
"""Returns the exit code: 0, 1 (it ran, the result is bad) or 2 (bad usage or config)."""


def add_command(commands: Any, name: str, run: Run, says: str, example: str) -> argparse.ArgumentParser:
    """Adds a parser to the subparsers `commands`; its options' `run` is `run`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=says, description=says, epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def refused(error: BaseException | str, code: int = 2) -> int:
    """Says on stderr, in one line, what is wrong. Returns the exit code."""
    print(f"persona: {' '.join(str(error).split())[:1000]}", file=sys.stderr)
    return code


def refusing(run: Run, *faults: type[Exception]) -> Run:
    """The same, with errors of these kinds as one line and exit code 2."""

    def checked(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except faults as error:
            return refused(error)

    return checked
