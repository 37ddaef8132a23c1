"""Inside shards/ imports run one way: format ← remote ← reading ← tools, and there is no circle of files."""

import pytest

from tests.house.import_graph import circles, edges

ROOMS = ("format", "remote", "reading", "tools")
"""From the lowest to the highest: a room may import itself and those before it."""


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """`file imports file` for every import of a higher room."""
    return [
        f"{file} imports {other}"
        for file, others in sorted(graph.items())
        for other in sorted(others)
        if file.startswith("shards/") and other.startswith("shards/") and _height(other) > _height(file)
    ]


def _height(file: str) -> int:
    room = file.split("/")[1]
    return ROOMS.index(room) if room in ROOMS else -1


def test_no_room_of_shards_imports_a_higher_one() -> None:
    assert arrows_up(edges()) == []


def test_no_files_of_shards_import_one_another_in_a_circle() -> None:
    assert [circle for circle in circles() if any(file.startswith("shards/") for file in circle)] == []


@pytest.mark.parametrize(
    ("file", "other"),
    [
        ("shards/format/dataset.py", "shards/reading/folder.py"),
        ("shards/remote/object_files.py", "shards/reading/loader.py"),
        ("shards/reading/folder.py", "shards/tools/verify.py"),
        ("shards/__init__.py", "shards/format/index.py"),
    ],
)
def test_the_rule_finds_an_import_of_a_higher_room(file: str, other: str) -> None:
    assert arrows_up({file: {other}}) == [f"{file} imports {other}"]


def test_whoever_only_reads_sees_at_most_fifteen_files() -> None:
    reading = [file for file in edges() if file.startswith("shards/reading/")]
    assert 1 < len(reading) <= 15
