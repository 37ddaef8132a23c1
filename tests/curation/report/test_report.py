"""`persona report`: all of a run is in it, nobody who opted out is, its what-ifs are what a run would say."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from persona import main
from tests.drawn_people import Drawn, collection, write_folder
from tests.drawn_pipeline import counts_of, files_of, settings, write_config
from tests.drawn_report import bytes_of, entries_of, overview_of, value_of
from tests.drawn_truth import rows_of, write_rows

OUT_AT_ONCE, OUT_LATER = 3, 17  # numbers of photos whose people opted out, before the run and after it


def persona(*words: str | Path) -> int:
    """The command line in this process: its exit code."""
    return main([str(word) for word in words])


def curate(config: Path, out: Path, *words: str) -> dict[str, Any]:
    """Runs the pipeline `drawn`; returns its summary."""
    options = ("--engine", "inline", "--quiet", "--allow-empty", *words)
    assert persona("curate", "drawn", "--config", config, "--out", out, *options) == 0
    return dict(json.loads((out / "summary.json").read_text()))


@dataclass(frozen=True)
class Finished:
    """A run of the drawn pipeline, its report, and where everything lies."""

    folder: Path
    drawn: list[Drawn]
    truth: Path
    pipeline: dict[str, Any]
    summary: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def report(self) -> Path:
        return self.run / "report"

    def id_of(self, number: int) -> str:
        return hashlib.sha256(self.drawn[number].jpeg).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """36 photos of six people; two opted out, one of them only after the run."""
    folder = tmp_path_factory.mktemp("reported")
    drawn = collection(5, people=6, outfits=2, photos=3)
    pipeline = settings(write_folder(folder / "photos", drawn))
    opt_out = folder / "opt-out.txt"
    opt_out.write_text(f"sha256:{hashlib.sha256(drawn[OUT_AT_ONCE].jpeg).hexdigest()}\n")
    pipeline["photos"]["screen"]["opt_out"] = str(opt_out)
    summary = curate(write_config(folder / "pipelines.yaml", pipeline), folder / "run")
    with opt_out.open("a") as file:
        file.write(f"sha256:{hashlib.sha256(drawn[OUT_LATER].jpeg).hexdigest()}\n")
    truth = write_rows(folder / "truth", *rows_of(drawn, {}))
    made = Finished(folder, drawn, truth, pipeline, summary)
    sweep = ("--sweep", "people.full_body.min_box_px=150:300:50")
    assert persona("report", made.run, "--truth", truth, *sweep) == 0
    return made


def test_every_photo_is_in_the_report_once_and_those_that_opted_out_are_not(finished: Finished) -> None:
    overview = overview_of(finished.report)
    rows = entries_of(finished.report, overview["rows"])
    wanted = {finished.id_of(number) for number in range(36)}
    wanted -= {finished.id_of(OUT_AT_ONCE), finished.id_of(OUT_LATER)}
    assert Counter(row[0] for row in rows) == Counter(wanted)
    assert overview["excluded"] == 2


@pytest.mark.parametrize("number", [OUT_AT_ONCE, OUT_LATER])
def test_no_byte_of_a_report_tells_of_a_photo_that_opted_out(finished: Finished, number: int) -> None:
    everything = bytes_of(finished.report)
    assert finished.id_of(number)[:16].encode() not in everything
    assert finished.drawn[number].name.encode() not in everything
    assert finished.id_of(number + 1)[:16].encode() in everything


def test_a_forgotten_person_is_not_in_a_report(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    group = entries_of(finished.report, overview_of(finished.report)["groups"])[0]["key"]
    identity = group.rpartition("-")[0]
    assert persona("shards", "forget", run / "shards", "--identity", identity) == 0
    assert persona("report", run) == 0
    assert identity.encode() in bytes_of(finished.report)
    assert identity.encode() not in bytes_of(run / "report")


def test_an_unreadable_list_of_opt_outs_stops_the_report(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    shutil.rmtree(run / "report")
    record = run / "run.yaml"
    record.write_text(record.read_text().replace("opt-out.txt", "gone.txt"))
    assert persona("report", run) == 2
    said = capsys.readouterr().err
    assert "gone.txt" in said
    assert len(said.splitlines()) == 1
    assert not (run / "report").exists()


def test_everyone_ended_somewhere_and_the_numbers_are_those_of_the_run(finished: Finished) -> None:
    overview = overview_of(finished.report)
    stages = {stage["stage"]: stage for stage in overview["stages"]}
    assert {name: stage["in"] for name, stage in stages.items()} == {
        name: counts[0] for name, counts in counts_of(finished.summary).items()
    }
    ended = Counter[str]()
    for ending in overview["endings"]:
        subjects = value_of(finished.report, ending["file"])
        assert len(subjects) == 2 * ending["count"]
        assert len({tuple(pair) for pair in pairwise(subjects)}) >= ending["count"]
        ended[ending["verdict"]] += ending["count"]
    assert sum(ended.values()) == 34  # one person a photo
    hidden = sum(finished.id_of(OUT_LATER) in group for group in kept_groups(finished.run))
    assert ended["kept"] == stages["captions"]["kept"] - hidden


def kept_groups(run: Path) -> list[set[str]]:
    groups = pq.read_table(run / "packing" / "groups.parquet").to_pylist()
    return [{name[:64] for name in row["person_ids"]} for row in groups if row["verdict"] == "kept"]


def test_the_decisions_about_a_person_are_those_that_why_tells(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    overview = overview_of(finished.report)
    for row in entries_of(finished.report, overview["rows"])[::7]:
        capsys.readouterr()
        assert persona("why", finished.run, row[0], "--json") == 0
        (photo,) = json.loads(capsys.readouterr().out)["photos"]
        for person, told in zip(row[6], photo["people"], strict=True):
            stages = [overview["words"][d if isinstance(d, int) else d[0]] for d in person[5]]
            assert stages == [decision["stage"] for decision in told["decisions"]]
            assert person[4] == told["caption"]


def test_every_score_of_a_stage_is_in_its_histogram(finished: Finished) -> None:
    scores = {(score["stage"], score["check"]): score for score in overview_of(finished.report)["scores"]}
    box = scores["full_body", "too_small"]
    assert sum(box["passed"]) + sum(box["failed"]) == 34
    assert box["key"] == "people.full_body.min_box_px"
    assert box["edges"][0] <= box["line"] <= box["edges"][-1]


def test_the_same_run_gives_the_same_report(finished: Finished, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert persona("report", finished.run, "--out", tmp_path / name) == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_second_report_leaves_nothing_of_the_first(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert persona("report", finished.run, "--out", out) == 0
    before = files_of(out)
    (out / "data" / "rows-99.js").write_text("report.put('rows-99',[]);")
    assert persona("report", finished.run, "--out", out) == 0
    assert files_of(out) == before


def test_a_sweep_says_what_a_run_with_that_threshold_would(finished: Finished, tmp_path: Path) -> None:
    (swept,) = overview_of(finished.report)["sweeps"]
    kept = {point["value"]: point["kept"] for point in swept["points"]}
    for value in (150, 250):
        summary = curate(
            finished.folder / "pipelines.yaml",
            tmp_path / f"run-{value}",
            *("--set", f"people.full_body.min_box_px={value}"),
            *("--set", "photos.screen.opt_out=null"),
        )
        opted_out = 1 if kept[value] else 0  # one more photo than the run had
        left = counts_of(summary).get("appearance", (0, 0))[1]
        assert left - opted_out == kept[value]


def test_photos_that_a_looser_filter_lets_through_and_no_detector_saw_are_unmeasured_in_a_sweep(
    tmp_path: Path,
) -> None:
    pipeline = settings(write_folder(tmp_path / "photos", collection(9, people=4, outfits=1, photos=3)))
    pipeline["people"]["nsfw"] = {"by": {"backend": "tests.drawn_models:DrawnClassifier"}, "max_score": 0.3}
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    strict = counts_of(curate(config, tmp_path / "strict"))
    loose = counts_of(curate(config, tmp_path / "loose", "--set", "people.nsfw.max_score=1.0"))
    assert 0 < strict["detect"][0] < loose["detect"][0] == 12
    assert persona("report", tmp_path / "strict", "--sweep", "people.nsfw.max_score=0.3:1:0.7") == 0
    (swept,) = overview_of(tmp_path / "strict" / "report")["sweeps"]
    as_it_was, moved = swept["points"]
    assert (as_it_was["kept"], as_it_was["unmeasured"]) == (strict["appearance"][1], 0)
    assert (moved["kept"], moved["unmeasured"]) == (strict["appearance"][1], 12 - strict["detect"][0])


def test_precision_and_recall_of_a_sweep_fall_with_who_is_missing(finished: Finished) -> None:
    (swept,) = overview_of(finished.report)["sweeps"]
    by_value = {point["value"]: point for point in swept["points"]}
    assert by_value[150]["precision"] == 1.0
    assert by_value[150]["recall"] == 1.0
    assert by_value[250]["kept"] == 0
    assert by_value[250]["precision"] is None
    assert by_value[250]["recall"] == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sweep", "people.detect.by.model"), "choose of"),
        (("--sweep", "people.no_such.key"), "choose of"),
        (("--sweep", "people.face.min_face_px=9"), "LOW:HIGH"),
        (("--sweep", "people.face.min_score=2:3:0.5"), "no value of this range"),
        (("--thumbnails", "-1"), "0 or more"),
        (("--truth", "no-such-truth"), "no photos.parquet"),
    ],
)
def test_a_report_that_makes_no_sense_is_one_line_and_exit_code_2(
    finished: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    assert persona("report", finished.run, "--out", tmp_path / "report", *words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("most", [0, 1, 5])
def test_no_more_pictures_are_made_than_were_asked_for(finished: Finished, tmp_path: Path, most: int) -> None:
    assert persona("report", finished.run, "--out", tmp_path / "report", "--thumbnails", str(most)) == 0
    overview = overview_of(tmp_path / "report")
    assert overview["thumbs"]["count"] == most
    assert len(entries_of(tmp_path / "report", overview["thumbs"])) == most


def test_a_report_that_cannot_be_written_leaves_the_last_one_whole(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert persona("report", finished.run, "--out", out) == 0
    before = files_of(out)
    assert persona("report", finished.run, "--out", out, "--sweep", "people.no_such.key") == 2
    assert persona("report", finished.run, "--out", out, "--truth", "no-such-truth") == 2
    assert files_of(out) == before


def test_a_folder_that_holds_something_else_is_left_alone(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.js").write_text("mine")
    assert persona("report", finished.run, "--out", tmp_path) == 2
    assert (tmp_path / "data" / "mine.js").read_text() == "mine"


def test_a_run_that_was_stopped_has_a_report_of_what_is_there(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    for phase in ("identities", "outfits", "captions", "packing", "shards", "report"):
        shutil.rmtree(run / phase)
    (run / "summary.json").unlink()
    (run / "status.json").write_text(json.dumps({"state": "stopped", "time": 0.0}))
    assert persona("report", run) == 0
    overview = overview_of(run / "report")
    assert overview["state"] == "stopped"
    assert overview["rows"]["count"] == 34
    assert overview["groups"]["count"] == 0
