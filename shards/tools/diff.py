"""In what two datasets differ: keys that only one has, and members that are not the same."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.tools.commands import folder_of, say
from shards.tools.dataset_rows import DatasetRows


@dataclass
class Difference:
    """changed: {key: {suffix: "only in A", "only in B" or "other bytes"}}."""

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    changed: dict[str, dict[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "same": not self}

    def lines(self) -> Iterator[str]:
        """For people, sorted by key."""
        yield from (f"- {key}" for key in self.only_a)
        yield from (f"+ {key}" for key in self.only_b)
        for key, members in self.changed.items():
            for suffix, how in members.items():
                yield f"~ {key}.{suffix}: {how}"


def diff(a: str, b: str) -> Difference:
    """Compares two datasets by key and by the checksums in their indexes; shards are not read."""
    one, two = DatasetRows(a), DatasetRows(b)
    numbers = two.numbers()
    found = Difference()
    for row in one.rows(0, len(one)):
        number = numbers.pop(row["key"], None)
        if number is None:
            found.only_a.append(row["key"])
            continue
        own, other = _checksums(row), _checksums(two.row(number))
        if own != other:
            found.changed[row["key"]] = {
                suffix: _how(own.get(suffix), other.get(suffix))
                for suffix in sorted(own.keys() | other.keys())
                if own.get(suffix) != other.get(suffix)
            }
    found.only_a.sort()
    found.only_b = sorted(numbers)
    found.changed = {key: found.changed[key] for key in sorted(found.changed)}
    return found


def _checksums(row: dict[str, Any]) -> dict[str, bytes]:
    return {member["suffix"]: member["checksum"] for member in row["members"]}


def _how(own: bytes | None, other: bytes | None) -> str:
    if own is None:
        return "only in B"
    return "only in A" if other is None else "other bytes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards diff`."""
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    found = diff(folder_of(options.a), folder_of(options.b))
    say(options, found.to_json(), found.lines())
    return 1 if found else 0
