"""Where metrics go: a line of JSON a step, which a resumed run continues without a seam, and others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from shards.format.atomic_file import write_whole


class Metrics(Protocol):
    """Takes numbers by name."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Of one step; names are the same for the whole run."""
        ...

    def close(self) -> None:
        """After the last one."""
        ...


class JsonLines:
    """`metrics.jsonl`: {"step": …, name: value, …} a line.

    What a killed run wrote of steps that are done again from `first_step` on is dropped.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] < first_step]
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())
        self._stream = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a line, and leaves it to the system at once."""
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class Together:
    """Several places, each of which gets everything."""

    def __init__(self, places: Sequence[Metrics]) -> None:
        self._places = places

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """To each."""
        for place in self._places:
            place.write(step, values)

    def close(self) -> None:
        """Each."""
        for place in self._places:
            place.close()


def _whole_lines(path: Path) -> list[str]:
    """Lines of a file; the last one of a killed run may be cut, and is left out."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line]
