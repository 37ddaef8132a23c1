"""One shard against its rows of the index: every header, content, padding and what lies between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from shards.format.members import split_name
from shards.format.tar_reader import BLOCK, Entry, TarError, check_end, padded, walk
from shards.tools.whole_shards import ForwardReader

MAX_NAMED = 20  # problems of one shard that are named; the rest is counted
_MAX_HEADERS = 2**26  # bytes between two members that are looked into


@dataclass(frozen=True)
class Problem:
    """What is wrong. `offset`: byte of the file, where it is known."""

    file: str
    says: str
    member: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        at = "" if self.offset is None else f" byte {self.offset}:"
        member = "" if self.member is None else f" {self.member}:"
        return f"{self.file}:{at}{member} {self.says}"


@dataclass
class CheckedShard:
    """A shard that was read. `problems`: the first ones; `more`: how many others there are."""

    size: int = 0
    checksum: str = ""
    members: int = 0
    problems: list[Problem] = field(default_factory=list)
    more: int = 0

    def add(self, problem: Problem) -> None:
        """Names a problem, or counts it where there are many."""
        if len(self.problems) < MAX_NAMED:
            self.problems.append(problem)
        else:
            self.more += 1


def check_members(
    reader: ForwardReader, size: int, name: str, rows: Sequence[dict[str, Any]], checked: CheckedShard
) -> None:
    """Compares a tar of `size` bytes with its rows, front to back. Adds what differs to `checked`."""
    at = 0
    for row in rows:
        start, whole = None, True
        for place in row["members"]:
            member = f"{row['key']}.{place['suffix']}"
            checked.members += 1
            offset, length = place["offset"], place["length"]
            if offset < at + BLOCK or length < 0 or offset + length > size:
                where = "in the member before it"
                if offset + length > size:
                    where = f"behind the end of the file, which has {size} bytes"
                says = f"the index has it from byte {offset} to {offset + length}: that is {where}"
                checked.add(Problem(name, says, member, offset))
                whole = False
                continue
            header = _check_header(reader, name, member, at, place, checked)
            start = header if start is None else start
            whole &= header is not None
            _check_content(reader, name, member, place, checked)
            at = offset + padded(length)
        if whole and start is not None and (start != row["offset"] or at - row["offset"] != row["length"]):
            says = (
                f"the index has the sample {row['key']} from byte {row['offset']} on, {row['length']} bytes; "
                f"it is at {start}, {at - start} bytes"
            )
            checked.add(Problem(name, says, None, start))
    _check_rest(reader, size, name, at, checked)


def _check_header(
    reader: ForwardReader, name: str, member: str, at: int, place: dict[str, Any], checked: CheckedShard
) -> int | None:
    """The header of a member, and that only headers lie before it. Returns where it begins."""
    offset, length = place["offset"], place["length"]
    if offset - at > _MAX_HEADERS:
        checked.add(Problem(name, f"{offset - at} bytes before {member} are in no member", None, at))
        return None
    region = reader.read(at, offset - at)
    try:
        for entry in walk(lambda o, n: region[o - at : o - at + n], 2**62, at):
            if entry.offset == offset:
                if entry.name != member or entry.length != length or not entry.is_file:
                    says = (
                        f"its header names {entry.name!r} with {entry.length} bytes, the index {member!r} "
                        f"with {length}"
                    )
                    checked.add(Problem(name, says, member, entry.start))
                return entry.start
            if entry.end > offset:
                break
            if _is_sample(entry):
                checked.add(Problem(name, "a member that the index does not have", entry.name, entry.start))
            if entry.end == offset:
                break
        checked.add(Problem(name, f"no header where the index has one, before byte {offset}", member, at))
    except TarError as error:
        says = str(error).partition(": ")[2]
        checked.add(Problem(name, f"header: {says}", member, error.offset))
    return None


def _check_content(
    reader: ForwardReader, name: str, member: str, place: dict[str, Any], checked: CheckedShard
) -> None:
    offset, length = place["offset"], place["length"]
    digest = xxhash.xxh3_128()
    for data in reader.chunks(offset, length):
        digest.update(data)
    if digest.digest() != place["checksum"]:
        says = (
            f"its {length} bytes have the checksum {digest.hexdigest()}, the index says "
            f"{place['checksum'].hex()}"
        )
        checked.add(Problem(name, says, member, offset))
    padding = reader.read(offset + length, padded(length) - length)
    rest = padding.lstrip(b"\0")
    if rest:
        there = offset + length + len(padding) - len(rest)
        checked.add(Problem(name, "padding behind it is not zero", member, there))


def _check_rest(reader: ForwardReader, size: int, name: str, at: int, checked: CheckedShard) -> None:
    """Behind the last member: two blocks of zeros, and nothing else."""
    if at > size:
        says = f"the file ends at byte {size}, in the padding of its last member"
        checked.add(Problem(name, says, None, size))
        return
    try:
        for entry in walk(reader.read, size, at):
            if _is_sample(entry):
                checked.add(Problem(name, "a member that the index does not have", entry.name, entry.start))
        check_end(reader.read, size, reader.at)
    except TarError as error:
        says = str(error).partition(": ")[2]
        checked.add(Problem(name, says, None, error.offset))


def _is_sample(entry: Entry) -> bool:
    """Whether readers of samples would take a member for part of one."""
    return entry.is_file and split_name(entry.name) is not None
