"""A small pipeline over drawn photos, run as a user runs it, and what must be true when it has ended."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config
from tests.faults.result import (
    comparable,
    files_below,
    require_ledger,
    require_same,
    require_tidy,
    require_whole,
)
from tests.faults.workplace import BrokenPromiseError, Workplace
from tests.forked import Command

PHOTOS = collection(31, people=8, outfits=1, photos=3)
"""24 photos of eight people: eight groups in three shards, four fragments a phase."""


def pipeline(source: Path | str, **engine: Any) -> dict[str, Any]:
    """The drawn pipeline in small fragments."""
    found = settings(source, **{"fragment_rows": 6, **engine})
    found["shards"]["max_groups"] = 3
    return found


def photos_of(place: Workplace, number: int = len(PHOTOS)) -> Path:
    """The first so many photos as a folder."""
    folder = place.folder / f"photos-{number}"
    return place.once(f"photos {number}", lambda: write_folder(folder, PHOTOS[:number]))


def config_of(place: Workplace, name: str, found: Mapping[str, Any]) -> Path:
    """The pipeline in a file of that name."""
    return place.once(f"config {name}", lambda: write_config(place.folder / f"{name}.yaml", dict(found)))


class Folder:
    """A run folder on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """As the command line takes it."""
        return str(self.path)

    def files(self) -> dict[str, bytes]:
        """Every file in it."""
        return files_below(self.path)


@dataclass(frozen=True)
class Undisturbed:
    """What a run gave that nobody disturbed, what it took of a processor, and its bytes."""

    files: Mapping[str, str]
    cpu_s: float
    seconds: float
    n_bytes: int


@dataclass(frozen=True)
class SmallRun:
    """One run of the pipeline `drawn`.

    where         its run folder: `Folder`, or one in a store
    scratch       a folder for its logs
    environment   set for its commands; None unsets
    photos        how many of PHOTOS are its collection
    """

    config: Path
    where: Any
    scratch: Path
    options: tuple[str, ...] = ("--engine", "inline")
    environment: Mapping[str, str | None] = field(default_factory=dict)
    photos: int = len(PHOTOS)

    def start(self, command: str = "curate") -> Command:
        """`curate`, or `retry`."""
        what: tuple[str | Path, ...] = ("curate", "drawn", "--config", self.config, "--out", self.where.url)
        if command == "retry":
            what = ("retry", self.where.url)
        return Command(
            (*what, *self.options, "--quiet"), self.scratch / f"{command}-said.txt", self.environment
        )

    def undisturbed(self, place: Workplace, name: str) -> Undisturbed:
        """Of this pipeline in this kind of place, made once; `name` tells it from others."""

        def make() -> Undisturbed:
            began = time.monotonic()
            command = self.start()
            if command.exit_code() != 0:
                raise RuntimeError(f"the undisturbed run {name} failed: {command.said()}")
            seconds = time.monotonic() - began
            self.check_ended()
            files = self.where.files()
            n_bytes = sum(map(len, files.values()))
            return Undisturbed(comparable(files), command.cpu_s, seconds, n_bytes)

        return place.once(f"undisturbed {name}", make)

    def check_visible(self) -> None:
        """Nothing that can be seen now is half."""
        folder = self.scratch / "seen"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        require_whole(self.where.files(), folder)

    def check_ended(self) -> None:
        """What must be true of any run that has ended."""
        files = self.where.files()
        require_ledger(files, [photo.name for photo in PHOTOS[: self.photos]])
        require_tidy(files)
        self.check_visible()

    def finish(self, undisturbed: Undisturbed) -> None:
        """What docs/operating.md tells its user to do: the same command, and `retry` where rows failed.

        Raises BrokenPromiseError where that does not end in the undisturbed result.
        """
        command = self.start()
        code = command.exit_code()
        if code or self._failed():
            command = self.start("retry")
            code = command.exit_code()
        if code:
            raise BrokenPromiseError(f"cannot go on: exit code {code}: {command.said()[-300:].strip()}")
        self.check_ended()
        require_same(self.where.files(), undisturbed.files)

    def _failed(self) -> int:
        summary = yaml.safe_load(self.where.files()["summary.json"])
        return sum(entry["failed"] for entry in summary["stages"])

    def with_environment(self, environment: Mapping[str, str | None]) -> "SmallRun":
        """The same run, gone on with by commands that have another environment."""
        return replace(self, environment=environment)


def local_run(place: Workplace, scratch: Path) -> SmallRun:
    """On this machine's disk, without Ray."""
    config = config_of(place, "local", pipeline(photos_of(place)))
    return SmallRun(config, Folder(scratch / "run"), scratch)


def require_one_line(command: Command) -> None:
    """A command that could not go on said so in one line, and exits with 1."""
    code, said = command.exit_code(), command.said().strip()
    if code != 1 or len(said.splitlines()) != 1 or not said.startswith("persona: "):
        raise BrokenPromiseError(f"exit code {code}, and not one clear line: {said[-400:]!r}")
