"""A command of `persona`, as all its parts make theirs: one line of help, an example, and what it runs.

It stands here because everything may import `shards`, and this file imports nothing of it.
"""

import argparse
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
