"""Wishes that a machine cannot read stop the run: they must not look like wishes that nobody has."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from curation.absolute import with_absolute_paths
from curation.engine import Answer, InlineEngine, Job, T, Task, Work
from curation.errors import ConfigError
from curation.excluded.tombstone_store import read_tombstones
from curation.photos.phase import run_photos
from curation.pipeline_file import load_pipeline
from curation.settings.base import Resources
from curation.step import Context
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config


class Silent:
    """Progress that nobody sees."""

    def begin(self, *said: Any, **more: Any) -> None: ...

    def advance(self, *said: Any, **more: Any) -> None: ...

    def end(self) -> None: ...

    def say(self, line: str) -> None: ...


class OtherNode(InlineEngine):
    """Works where the files of the machine that began the run are not."""

    def __init__(self, hidden: Path) -> None:
        self._hidden = hidden

    def map(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        away = self._hidden.rename(self._hidden.with_name("away"))
        try:
            yield from list(super().map(opener, job, tasks, resources))
        finally:
            away.rename(self._hidden)


def context(tmp_path: Path, engine: InlineEngine) -> Context:
    (tmp_path / "opt-out.txt").write_text("id:nobody.jpg\n")
    pipeline = settings(write_folder(tmp_path / "photos", collection(5, people=1)))
    pipeline["photos"]["screen"]["opt_out"] = str(tmp_path / "opt-out.txt")
    config = write_config(tmp_path / "config" / "pipelines.yaml", pipeline)
    job = Job(str(tmp_path / "run"), with_absolute_paths(load_pipeline(str(config), "drawn")), {})
    return Context(job, engine, Silent())


def test_a_worker_that_does_not_see_the_opt_out_list_stops_the_run(tmp_path: Path) -> None:
    found = context(tmp_path, OtherNode(tmp_path / "opt-out.txt"))
    with pytest.raises(ConfigError, match=r"opt-out\.txt: cannot be read"):
        run_photos(found)


def test_a_store_that_cannot_be_reached_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "away").symlink_to(tmp_path / "not-mounted")
    (tmp_path / "file").write_text("")
    for name in ("circle", "away", "file"):
        with pytest.raises(ConfigError, match=str(tmp_path / name)):
            read_tombstones(str(tmp_path / "run"), str(tmp_path / name))
    assert len(read_tombstones(str(tmp_path / "run"), str(tmp_path / "not-there-yet"))) == 0
