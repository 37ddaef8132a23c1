"""The two tables of the phase `people`: a fragment of both is committed at once, and a row is a person."""

import io
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from curation.ledger import DECISIONS, KEPT
from curation.meters import CallCounter
from curation.people.chain import ChainContext
from curation.people.person_stage import Measured, People, PersonStage
from curation.run_folder import Run
from curation.settings.base import Settings
from curation.why import explain
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import asked, curate, photos_with_people, settings, write_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    photos = write_folder(folder / "photos", collection(5, people=3, outfits=2, photos=3))
    return write_config(folder / "pipelines.yaml", settings(photos, fragment_rows=8))


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    curate(config, config.parent / "run")
    return config.parent / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def fragments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("fragment-*.parquet"))


def test_people_stand_in_the_order_of_their_photos_and_name_them(run: Path) -> None:
    found = Run(str(run))
    assert len(found.people.fragments()) == 3
    for fragment in found.people.fragments():
        photos = found.people_photos.read(fragment, ["source_key", "people"]).to_pylist()
        people = found.people.joined(fragment, ["person_id", "person_index"], ["photo_id"]).to_pylist()
        named = [photo["source_key"] for photo in photos for _ in range(photo["people"])]
        assert [person["source_key"] for person in people] == named
        for person in people:
            assert person["person_id"] == f"{person['photo_id']}-{person['person_index']}"


def test_what_a_kill_left_between_the_two_files_of_a_fragment_counts_for_nothing(
    config: Path, run: Path, tmp_path: Path
) -> None:
    before = photos_with_people(run)
    committed = fragments_of(run / "people")[1]
    left = run / "people" / "_photos" / committed.name
    (lost, *_) = pq.read_table(left, columns=["file_name"])["file_name"].to_pylist()
    committed.unlink()
    assert left.exists()
    assert len(Run(str(run)).people_photos.fragments()) == 2
    with pytest.raises(ConfigError, match="knows no photo"):
        explain(str(run), lost)
    curate(config, run, calls=tmp_path / "calls")
    assert list(asked(tmp_path / "calls")) == []
    assert photos_with_people(run) == before


def test_files_that_no_fragment_commits_are_gone_after_the_next_start(config: Path, run: Path) -> None:
    photos = run / "people" / "_photos"
    names = [file.name for file in fragments_of(photos)]
    shutil.copy(photos / names[0], photos / "fragment-000000-0123456789abcdef.parquet")
    curate(config, run)
    assert [file.name for file in fragments_of(photos)] == names
    assert [file.name for file in fragments_of(run / "people")] == names


def test_a_reader_of_parquet_that_is_given_the_folder_reads_people_and_nothing_else(run: Path) -> None:
    for file in fragments_of(run / "people")[1:]:
        file.unlink()
    table = pq.read_table(run / "people")
    assert table.num_rows == 8
    assert "person_id" in table.column_names
    assert "file_name" not in table.column_names


def test_a_run_of_a_version_with_one_table_is_told_of_in_one_line_and_made_anew(
    config: Path, run: Path
) -> None:
    before = photos_with_people(run)
    shutil.rmtree(run / "people" / "_photos")
    for file in fragments_of(run / "people"):
        file.rename(file.with_name(f"{file.stem[:-16]}{'0' * 16}.parquet"))
    said = io.StringIO()
    with redirect_stderr(said):
        assert main(["why", str(run), next(iter(before))]) == 2
    (line,) = said.getvalue().splitlines()
    assert "another version of persona" in line
    assert "the same curate command" in line
    curate(config, run)
    assert photos_with_people(run) == before


class BreaksDown(PersonStage):
    """Breaks down on photos on which anybody called `b` is wanted; of others it is the length of the name."""

    name: ClassVar[str] = "length"
    fills: ClassVar[pa.Schema] = pa.schema([("length", pa.float32()), ("length_error", pa.string())])

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        if any(person["person_id"].startswith("b") for person in wanted):
            raise RuntimeError("no b")
        return [{"length": float(len(person["person_id"]))} for person in wanted]


class Black:
    """Photos without a file."""

    def rgb(self, row: dict[str, Any]) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


def people(photos: Sequence[Sequence[tuple[str, float | None]]]) -> pa.Table:
    """(person_id, what was measured before) of the people of each photo."""
    rows = [(str(photo), *person) for photo, shown in enumerate(photos) for person in shown]
    return pa.table(
        {
            "source_key": [key for key, _, _ in rows],
            "person_id": [name for _, name, _ in rows],
            "length": pa.array([length for _, _, length in rows], pa.float32()),
            "length_error": pa.nulls(len(rows), pa.string()),
            "verdict": [KEPT] * len(rows),
            "decisions": pa.array([[]] * len(rows), DECISIONS),
        }
    )


def test_who_breaks_a_model_down_fails_alone_and_what_was_known_of_the_others_stays() -> None:
    stage = BreaksDown(Settings(), ChainContext(Black(), CallCounter(None)))  # type: ignore[arg-type]
    table = people([[("aa", 7.0), ("b", None)], [("ccc", None), ("dd", None)]])
    assert stage.missing(table) == [False, True, True, True]
    ruled = stage(table)
    assert ruled["length"].to_pylist() == [7.0, None, 3.0, 2.0]
    assert ruled["length_error"].to_pylist() == [None, "RuntimeError: no b", None, None]
    assert ruled["verdict"].to_pylist() == [KEPT, "failed", KEPT, KEPT]
