"""`persona runs` and `persona diff`: which runs there are, and what a changed threshold changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import settings, write_config

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs of 18 photos: `wide`, and `strict`, which lets nobody of less than 250 px in."""
    folder = tmp_path_factory.mktemp("compared")
    photos = write_folder(folder / "photos", collection(3, people=3, outfits=2, photos=3))
    config = write_config(folder / "pipelines.yaml", settings(photos))
    for name, least in (("wide", 100), ("strict", 250)):
        words = ["curate", "drawn", "--config", str(config), "--out", str(folder / "runs" / name)]
        swept = ["--set", f"people.full_body.min_box_px={least}"]
        assert main([*words, *swept, "--engine", "inline", "--quiet", "--allow-empty"]) == 0
    return folder / "runs"


def said_by(capsys: Said, *words: str | Path) -> Any:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_runs_below_a_folder_are_listed(runs: Path, capsys: Said) -> None:
    found = said_by(capsys, "runs", runs.parent, "--json")["runs"]
    assert [(Path(run["run"]).name, run["pipeline"], run["state"]) for run in found] == [
        ("strict", "drawn", "finished"),
        ("wide", "drawn", "finished"),
    ]
    assert found[0]["groups"] == 0 < found[1]["groups"]
    assert [run["collection"] for run in found] == [18, 18]


def test_a_run_does_not_differ_from_itself(runs: Path, capsys: Said) -> None:
    found = said_by(capsys, "diff", runs / "wide", runs / "wide", "--json")
    assert [run["state"] for run in found.pop("runs")] == ["finished", "finished"]
    assert found == {"settings": {}, "stages": {}, "moved": [], "same": 18}


def test_a_changed_threshold_is_named_with_everyone_whom_it_moved(runs: Path, capsys: Said) -> None:
    found = said_by(capsys, "diff", runs / "wide", runs / "strict", "--json")
    assert found["settings"] == {"people.full_body.min_box_px": [100, 250]}
    assert found["stages"]["full_body"][0]["kept"] == 18
    assert found["stages"]["full_body"][1]["rejected"] == 18
    assert {move["to"] for move in found["moved"]} == {"full_body: too_small"}
    assert sum(move["count"] for move in found["moved"]) == 18
    assert found["same"] == 0


@pytest.mark.parametrize("words", [("runs", "no-such-folder"), ("diff", "no-such-run", "nor-this")])
def test_what_is_not_there_is_one_line_and_exit_code_2(words: tuple[str, ...], capsys: Said) -> None:
    assert main(list(words)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
