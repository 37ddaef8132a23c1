"""Commands of `persona`: a parser, one line of help, an example, what is run, and errors of one line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]
"""Returns the exit code: 0, 1 (it ran, the result is bad) or 2 (bad usage or config)."""


class Parser(argparse.ArgumentParser):
    """A parser for which a word with one dash in front is a name: photos are called "-1_c1s1.jpg".

    Our options have two dashes, all but -h; what has two and is no option stays an error, as typing errors
    should. Before a name that begins with two stands `--`, or `=` behind its option.
    """

    def _parse_optional(self, arg_string: str) -> Any:
        if arg_string.startswith("-") and not arg_string.startswith("--") and arg_string != "-h":
            return None  # by which argparse means: no option
        return super()._parse_optional(arg_string)


def add_command(commands: Any, name: str, run: Run, says: str, example: str) -> argparse.ArgumentParser:
    """Adds a parser to the subparsers `commands`; its options' `run` is `run`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=says, description=says, epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def refused(error: BaseException | str, code: int = 2) -> int:
    """Prints on stderr, in one line, what is wrong. Returns the exit code."""
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
