"""`status`, `why`, `retry`, `runs`, `diff`: one object for machines, one line for what is not there."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import asked, rows_of, settings, write_config

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 photos and a broken one, which failed."""
    folder = tmp_path_factory.mktemp("operated")
    photos = write_folder(folder / "photos", collection(3, people=2, outfits=2, photos=3))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    config = write_config(folder / "pipelines.yaml", settings(photos, fragment_rows=4))
    words = ["curate", "drawn", "--config", str(config), "--out", str(folder / "runs/first")]
    assert main([*words, "--engine", "inline", "--quiet"]) == 0
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(place / "runs/first", tmp_path / "run"))


def object_of(capsys: Said, *words: str | Path, code: int = 0) -> dict[str, Any]:
    """The one object that a command prints."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return dict(json.loads(line))


def refused(capsys: Said, *words: str | Path) -> str:
    """The one line of a command that exits with 2."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def told(run: Path, **changes: Any) -> None:
    """status.json as a run that is at work writes it."""
    record = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    "words",
    [("status",), ("why", "x.jpg"), ("why", "--failed"), ("retry",), ("diff", "nor-this"), ("report",)],
)
def test_what_is_no_run_is_one_line(words: tuple[str, ...], tmp_path: Path, capsys: Said) -> None:
    command, *rest = words
    assert "is no run folder" in refused(capsys, command, tmp_path / "no-run", *rest)


def test_a_finished_run_says_so_with_every_stage(place: Path, capsys: Said) -> None:
    found = object_of(capsys, "status", place / "runs/first")
    assert (found["state"], found["message"], found["phase"], found["silent_s"]) == (
        "finished",
        "",
        None,
        None,
    )
    assert found["collection"] == 13
    for stage in found["stages"]:
        assert stage["in"] == stage["kept"] + stage["rejected"] + stage["failed"]


def test_the_folder_that_holds_a_run_as_the_demo_does_stands_for_it(run: Path, capsys: Said) -> None:
    assert object_of(capsys, "status", run.parent) == object_of(capsys, "status", run)
    assert object_of(capsys, "why", run.parent, "broken.jpg") == object_of(capsys, "why", run, "broken.jpg")


def test_a_run_at_work_is_well_and_one_that_fell_silent_is_not(run: Path, capsys: Said) -> None:
    told(run, state="running", time=time.time())
    assert object_of(capsys, "status", run)["state"] == "running"
    told(run, state="running", time=time.time() - 120)
    assert object_of(capsys, "status", run, code=1)["silent_s"] > 60
    assert main(["status", str(run)]) == 1
    assert "no sign of life" in capsys.readouterr().out


def test_a_run_that_stopped_says_why_and_what_it_has(run: Path, capsys: Said) -> None:
    told(run, state="stopped", message="no space left")
    for name in ("outfits", "captions", "packing", "shards"):
        shutil.rmtree(run / name)
    found = object_of(capsys, "status", run, code=1)
    assert (found["state"], found["message"], found["groups"]) == ("stopped", "no space left", 0)
    assert [stage["stage"] for stage in found["stages"]][:4] == ["read", "screen", "rights", "copies"]


@pytest.mark.parametrize("name", ["status.json", "run.yaml"])
def test_a_damaged_record_is_one_line_and_the_same_command_mends_it(
    name: str, place: Path, run: Path, capsys: Said
) -> None:
    (run / name).write_text("{ cut")
    assert "damaged" in refused(capsys, "diff", run, run)
    (run / "status.json").unlink()
    words = ["curate", "drawn", "--config", str(place / "pipelines.yaml"), "--out", str(run)]
    assert main([*words, "--engine", "inline", "--quiet"]) == 0
    assert object_of(capsys, "status", run)["state"] == "finished"


def test_why_names_every_decision_of_a_photo_and_its_people(place: Path, capsys: Said) -> None:
    failed = object_of(capsys, "why", place / "runs/first", "broken.jpg")
    (photo,) = failed["photos"]
    assert (photo["verdict"], photo["decisions"][-1]["reason"]) == ("failed", "unreadable")
    group = rows_of(place / "runs/first/packing/groups.parquet")[0]
    (photo,) = object_of(capsys, "why", place / "runs/first", group["person_ids"][0])["photos"]
    (person,) = photo["people"]
    assert person["group"] == group["group"]
    of_person = object_of(capsys, "why", place / "runs/first", person["identity"])["photos"]
    assert photo["photo_id"] in {found["photo_id"] for found in of_person}
    assert {decision["stage"] for decision in person["decisions"]} >= {
        "detected",
        "identity",
        "outfit",
        "pack",
    }


def test_why_lists_all_failures_as_one_object(place: Path, capsys: Said) -> None:
    found = object_of(capsys, "why", place / "runs/first", "--failed")
    assert [(row["id"], row["stage"], row["reason"]) for row in found["failed"]] == [
        ("photos/broken.jpg", "read", "unreadable")
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no-such-photo.jpg",), "knows no photo, person, identity or group 'no-such-photo.jpg'"),
        (("ab",), "needs 6 characters"),
        ((), "give an id or a file name, or --failed"),
        (("x", "--failed"), "not both"),
    ],
)
def test_what_why_cannot_answer_is_one_line(
    words: tuple[str, ...], says: str, place: Path, capsys: Said
) -> None:
    assert says in refused(capsys, "why", place / "runs/first", *words)


def test_retry_takes_up_what_failed_and_asks_models_about_nobody_else(
    run: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_CALLS", str(tmp_path / "calls"))
    found = object_of(capsys, "retry", run, "--engine", "inline", "--quiet")
    assert found["taken_up"] == 1
    assert {stage for stage, _ in asked(tmp_path / "calls")} == {"read"}
    assert [stage["failed"] for stage in found["stages"] if stage["stage"] == "read"] == [1]


def test_the_sample_of_a_plan_is_not_retried(run: Path, capsys: Said) -> None:
    (run / "run.yaml").write_text((run / "run.yaml").read_text() + "sample: true\n")
    assert "holds the sample of `persona plan`" in refused(capsys, "retry", run)


def test_a_damaged_run_hides_no_other(place: Path, run: Path, capsys: Said) -> None:
    (run / "status.json").write_text("{ cut")
    shutil.copytree(place / "runs/first", run.parent / "whole")
    found = object_of(capsys, "runs", run.parent)["runs"]
    assert [(Path(entry["run"]).name, entry["state"]) for entry in found] == [
        ("run", "damaged"),
        ("whole", "finished"),
    ]
    assert main(["runs", str(run.parent)]) == 0


def test_a_folder_without_runs_is_no_error(tmp_path: Path, capsys: Said) -> None:
    assert object_of(capsys, "runs", tmp_path) == {"folder": str(tmp_path), "runs": []}


def test_diff_says_when_one_of_them_is_not_finished(place: Path, run: Path, capsys: Said) -> None:
    told(run, state="stopped", message="no space left")
    found = object_of(capsys, "diff", place / "runs/first", run)
    assert [entry["state"] for entry in found["runs"]] == ["finished", "stopped"]
    assert main(["diff", str(place / "runs/first"), str(run)]) == 0
    assert "is not finished (stopped)" in capsys.readouterr().out
