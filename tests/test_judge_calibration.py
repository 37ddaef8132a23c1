"""Calibration: probabilities that hold on other people, cuts for a precision, no other judge's figures."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from curation.errors import ConfigError
from curation.models import Model
from curation.outfits.fit import calibration_error, held_out, platt, reliability
from curation.outfits.judge_identity import check_calibration, judge_identity
from curation.outfits.labelled_pairs import read_pairs
from curation.settings import PipelineSettings
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, persona, rows_of, settings, write_config
from tests.drawn_questions import JUDGE, TINY


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


def test_held_out_probabilities_are_found_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    features = random.normal(0, 2, (4000, 2))
    same = random.uniform(size=4000) < 1 / (1 + np.exp(-(2 * features[:, 0] - features[:, 1])))
    log_odds = held_out(features, same, [f"person {i % 200}" for i in range(4000)])
    assert log_odds is not None
    bins = reliability(1 / (1 + np.exp(-log_odds)), same)
    assert calibration_error(bins) < 0.03
    assert platt(features, same)[:2] == pytest.approx([2, -1], rel=0.15)


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
    labels = "".join(
        f"{a.name},{b.name},{int(a.outfit == b.outfit)}\n"
        for i, a in enumerate(drawn)
        for b in drawn[:i]
        if a.person == b.person
    )
    (tmp_path / "labels.csv").write_text(f"a,b,same\n{labels}")
    done = persona("judge", "calibrate", tmp_path / "run", "--pairs", tmp_path / "labels.csv")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["held_out"] is True
    svg = ET.parse(tmp_path / "run" / "judge-calibration.svg").getroot()
    assert svg.tag.endswith("svg")
    written = json.dumps({"backend": "clusters", "calibration": found["calibration"]})
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


def test_calibrating_needs_pairs_or_a_truth_and_not_both(tmp_path: Path, photos: Path) -> None:
    config = write_config(tmp_path / "p.yaml", settings(photos))
    curate(config, tmp_path / "run")
    for words in ((), ("--pairs", "x.csv", "--truth", "y")):
        done = persona("judge", "calibrate", tmp_path / "run", *words)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
