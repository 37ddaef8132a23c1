"""A photo may be called -1_c1s1.jpg: wherever a command takes a name, it takes that one."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import persona

NAME = "-1_c1s1.jpg"
WITH_TWO = "--1_c1s1.jpg"
OF_ONE_PART = ("judge", "identities", "shards")  # the front door makes their commands when they are called


class ReachedError(Exception):
    """The parser of the whole command line."""


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(words, parser) of every command."""

    def reach(parser: argparse.ArgumentParser, *words: Any) -> None:
        raise ReachedError(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", reach)
        wholes = []
        for first in ("", *OF_ONE_PART):
            with pytest.raises(ReachedError) as reached:
                persona.main([first])
            wholes.append(reached.value.args[0])
    found = {words: parser for whole in wholes for words, parser in leaves(whole, "")}
    yield from found.items()


def leaves(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, f"{words} {name}".strip())
    if not below:
        yield words, parser


def takes_names(action: argparse.Action) -> bool:
    return action.nargs != 0 and action.type is None and action.choices is None


def words_of(action: argparse.Action, name: str) -> list[str]:
    """The action's words, with a name where it takes one."""
    value = name if takes_names(action) else str(next(iter(action.choices or ["1"])))
    return [*action.option_strings[-1:], value]


def needed(parser: argparse.ArgumentParser, given: Sequence[argparse.Action]) -> list[argparse.Action]:
    """What else a command line must have."""
    wanted = [action for action in parser._actions if action.required and action not in given]
    for group in parser._mutually_exclusive_groups:
        if group.required and not set(group._group_actions) & {*given, *wanted}:
            wanted.append(group._group_actions[0])
    return wanted


CASES = [
    pytest.param(
        parser, action, id=f"{words} {action.option_strings[-1] if action.option_strings else action.dest}"
    )
    for words, parser in commands()
    for action in parser._actions
    if takes_names(action)
]


@pytest.mark.parametrize(("parser", "action"), CASES)
def test_a_name_that_begins_with_a_dash_is_a_name(
    parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    wanted = [action, *needed(parser, [action])]
    # Options last, since one with many values takes all that stands behind it.
    wanted.sort(key=lambda one: (bool(one.option_strings), parser._actions.index(one)))
    words = [word for one in wanted for word in words_of(one, NAME if one is action else "name")]
    found = getattr(parser.parse_args(words), action.dest)
    assert NAME in (found if isinstance(found, list) else [found])


def test_why_and_forget_take_such_a_name_from_a_terminal(tmp_path: Path, capsys: Any) -> None:
    for words in (
        ["why", str(tmp_path), NAME],
        ["why", str(tmp_path), "--", WITH_TWO],
        ["forget", str(tmp_path), "--photo", NAME],
        ["forget", str(tmp_path), f"--photo={WITH_TWO}"],
    ):
        assert persona.main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            "persona: "
        )  # and no "usage: …": there is no run here, and that is no photo_id


@pytest.mark.parametrize("word", ["--qiuet", "-qiuet"])
def test_an_option_that_there_is_not_is_still_an_error(word: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        persona.main(["retry", "runs/first", word])
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err
