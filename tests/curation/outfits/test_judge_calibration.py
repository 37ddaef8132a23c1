"""Calibration: probabilities that hold on other people, cuts for a precision, no other judge's figures."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import pytest

from curation.errors import ConfigError
from curation.judging.calibrate import calibrate_run, strategy_with
from curation.judging.labelled_pairs import read_pairs
from curation.models import Model
from curation.outfits.judge_identity import check_calibration, judge_identity, judge_in_words
from curation.settings import PipelineSettings
from curation.settings.outfits import CalibrationSettings, ClustersStrategy, PaperStrategy
from tests.drawn_people import Drawn, collection, write_folder
from tests.drawn_pipeline import curate, persona, rows_of, settings, write_config
from tests.drawn_questions import JUDGE, TINY
from tests.knowing_judge import PHOTOS


def write_labels(file: Path, drawn: list[Drawn]) -> None:
    """Every pair of photos of one person, with the truth."""
    labels = "".join(
        f"{a.name},{b.name},{int(a.outfit == b.outfit)}\n"
        for i, a in enumerate(drawn)
        for b in drawn[:i]
        if a.person == b.person
    )
    file.write_text(f"a,b,same\n{labels}")


def vlm_pipeline(calibration: dict[str, object] | None = None, **judge: object) -> PipelineSettings:
    pipeline = settings("nowhere")
    pipeline["models"] = {
        "cards": {"tiny": {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}}
    }
    pipeline["outfits"] = {
        "strategy": {"backend": "clusters", **({"calibration": calibration} if calibration else {})},
        "judge": {**JUDGE, **judge},
    }
    return PipelineSettings.model_validate(pipeline)


def test_a_calibration_is_of_a_model_a_prompt_and_a_layout_and_not_of_a_server() -> None:
    models = {"tiny": TINY}
    mine = judge_identity(vlm_pipeline(), models)
    assert judge_identity(vlm_pipeline(endpoint="http://gpu7:8000", in_flight=3), models) == mine
    assert judge_identity(vlm_pipeline(backend="transformers"), models) == mine
    others = [
        judge_identity(vlm_pipeline(), {"tiny": Model("tiny", "nowhere", "1" * 64, "MIT")}),
        judge_identity(vlm_pipeline(prompt="outfit-exact"), models),
        judge_identity(vlm_pipeline(canvas_px=[224, 448]), models),
        judge_identity(vlm_pipeline(background="keep"), models),
    ]
    assert len({mine, *others}) == 5


def test_a_calibration_of_another_judge_is_refused_in_one_line_that_names_both() -> None:
    models = {"tiny": TINY}
    mine = judge_identity(vlm_pipeline(), models)
    check_calibration(vlm_pipeline({"of": mine, "slope": 1.0, "offset": 0.0}), models)
    with pytest.raises(ConfigError, match=f"{'f' * 16}.*{mine}.*persona judge calibrate"):
        check_calibration(vlm_pipeline({"of": "f" * 16, "slope": 1.0, "offset": 0.0}), models)


@pytest.mark.parametrize("preset", ["strict", "recall"])
@pytest.mark.parametrize("accept", [1e-6, 0.04, 0.29, 0.6, 0.9, 0.96, 0.999999, None])
def test_the_strategy_that_calibrate_prints_loads_whatever_it_found(
    accept: float | None, preset: Literal["strict", "recall"]
) -> None:
    before = ClustersStrategy(preset=preset, tries=5)
    found = CalibrationSettings(of="0" * 16, slope=0.64, likeness=3.75, offset=-9.05)
    words = strategy_with(before, found, accept, 0.41)
    pipeline = PipelineSettings.model_validate({**settings("nowhere"), "outfits": {"strategy": words}})
    strategy = pipeline.outfits.strategy
    assert isinstance(strategy, ClustersStrategy)
    assert (strategy.preset, strategy.tries, strategy.low_cut) == (preset, 5, 0.41)
    assert strategy.calibration == found
    if accept is None:
        assert strategy.resolved().accept == before.resolved().accept
        return
    own, preset_of = strategy.resolved(), before.resolved()
    assert own.accept == accept
    # No answer counts as sure that the preset would ask again.
    assert (own.sure_same or 0) >= max(preset_of.sure_same or 0, accept)
    assert (own.sure_other or 1) <= min(preset_of.sure_other or 1, accept)


def test_a_pipeline_of_the_papers_protocol_is_given_the_strict_clusters() -> None:
    found = CalibrationSettings(of="0" * 16, slope=1.0, offset=0.0)
    words = strategy_with(PaperStrategy(), found, 0.9, 0.3)
    assert (words["backend"], words["preset"]) == ("clusters", "strict")
    assert (words["sure_same"], words["sure_other"]) == (0.95, 0.3)


def test_the_record_names_model_prompt_and_layout_beside_their_hash() -> None:
    models = {"tiny": TINY}
    said = judge_in_words(vlm_pipeline(background="keep"), models)
    assert said["model"] == "tiny"
    assert said["sha256"] == TINY.sha256
    assert said["prompt"] == "outfit-brief"
    assert said["layout"] == {"canvas_px": [112, 224], "background": "keep", "margin": 0.0}
    plain = judge_in_words(PipelineSettings.model_validate(settings("nowhere")), {})
    assert plain == {"backend": "appearance", "model": None, "sha256": None, "prompt": None, "layout": None}


@pytest.mark.parametrize("word", ["maybe", "2"])
def test_a_label_that_is_no_label_is_named_with_its_line(tmp_path: Path, word: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"a,b,same\nx,y,1\nx,z,unknown\ny,z,{word}\n")
    with pytest.raises(ConfigError, match=f"labels.csv:4: same is '{word}'"):
        read_pairs(str(file))


def test_clusters_run_with_what_calibrate_wrote_and_keep_every_outfit(tmp_path: Path) -> None:
    """From photos to groups through the command line: two outfits a person, both are kept."""
    drawn = collection(41, people=10, outfits=2, photos=3)
    config = write_config(tmp_path / "p.yaml", settings(write_folder(tmp_path / "photos", drawn)))
    curate(config, tmp_path / "run")
    write_labels(tmp_path / "labels.csv", drawn)
    done = persona("judge", "calibrate", tmp_path / "run", "--pairs", tmp_path / "labels.csv")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["held_out"] is True
    assert found["judge"]["backend"] == "appearance"
    said = next(line for line in done.stdout.splitlines() if "outfits.strategy=" in line)
    strategy = json.loads(said.split("outfits.strategy=")[1].rstrip("'"))
    assert strategy == found["strategy"]
    assert {"calibration", "accept", "sure_same", "sure_other", "low_cut"} <= set(strategy)
    svg = ET.parse(tmp_path / "run" / "judge-calibration.svg").getroot()
    assert svg.tag.endswith("svg")
    written = json.dumps(strategy)
    curate(config, tmp_path / "run", "--set", f"outfits.strategy={written}")
    outfit_of = {row.name: (row.person, row.outfit) for row in drawn}
    groups: dict[str, set[tuple[int, int]]] = {}
    for row in rows_of(tmp_path / "run" / "captions"):
        groups.setdefault(row["group"], set()).add(outfit_of[row["file_name"]])
    assert all(len(outfits) == 1 for outfits in groups.values())
    assert len({outfit for outfits in groups.values() for outfit in outfits}) >= 16
    said = persona("why", tmp_path / "run", drawn[0].name).stdout
    assert "the same as" in said or "first photo of its outfit" in said
    broken = written.replace(found["of"], "f" * 16)
    refused = persona(
        "curate", "drawn", "--config", config, "--out", tmp_path / "other", "--engine", "inline",
        "--set", f"outfits.strategy={broken}",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "of another judge" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_pairs_of_which_the_judge_cannot_tell_are_accepted_by_no_cut(tmp_path: Path) -> None:
    """Their scores are the highest: a cut that took them would have a precision that no run has."""
    drawn = collection(43, people=20, outfits=2, photos=PHOTOS)
    pipeline = settings(write_folder(tmp_path / "photos", drawn))
    pipeline["outfits"] = {"judge": {"backend": "tests.knowing_judge:KnowingJudge"}}
    curate(write_config(tmp_path / "p.yaml", pipeline), tmp_path / "run")
    write_labels(tmp_path / "labels.csv", drawn)
    found = calibrate_run(str(tmp_path / "run"), 1.0, str(tmp_path / "labels.csv"))
    # Of the three pairs of an outfit it can tell one.
    assert (found["precision"], found["accepted"], found["recall"]) == (1.0, 40, round(1 / 3, 4))
    assert 0.4 < found["cut"] < 0.9
    assert found["at_least"] == pytest.approx(0.05 ** (1 / 40), abs=1e-4)


def test_calibrating_needs_pairs_or_a_truth_and_not_both(tmp_path: Path, photos: Path) -> None:
    config = write_config(tmp_path / "p.yaml", settings(photos))
    curate(config, tmp_path / "run")
    for words in ((), ("--pairs", "x.csv", "--truth", "y")):
        done = persona("judge", "calibrate", tmp_path / "run", *words)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
