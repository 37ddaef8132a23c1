"""A stage that measures photos as a whole: one that breaks down on a photo lets it in nowhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.people.chain import ChainStage
from curation.people.nsfw import Nsfw
from curation.people.stages import STAGES, refuse_misplaced
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import asked, counts_of, curate, rows_of, settings, write_config


class BreakingClassifier:
    """Breaks down on pictures whose pixels have an odd sum; of the others the score is 0.5."""

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def score(self, pictures: list[np.ndarray]) -> np.ndarray:
        if any(int(picture.sum()) % 2 for picture in pictures):
            raise RuntimeError("odd pictures are too much")
        return np.array([0.5 for _ in pictures], np.float32)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    pipeline = settings(write_folder(folder / "photos", collection(4, people=3, outfits=2, photos=2)))
    backend = f"{BreakingClassifier.__module__}:{BreakingClassifier.__name__}"
    pipeline["people"]["nsfw"] = {"by": {"backend": backend}, "max_score": 0.5}
    pipeline["engine"]["max_failed_share"] = 1.0
    return write_config(folder / "pipelines.yaml", pipeline)


def test_a_photo_that_a_filter_breaks_down_on_is_failed_and_never_let_in(
    config: Path, tmp_path: Path
) -> None:
    counts = counts_of(curate(config, tmp_path / "run"))
    into, kept, rejected, failed = counts["nsfw"]
    assert (into, rejected) == (12, 0)
    assert 0 < failed < 12
    assert counts["detect"][0] == kept == 12 - failed
    last = [row["decisions"][-1] for row in rows_of(tmp_path / "run" / "people" / "_photos", ["decisions"])]
    broken = [decision for decision in last if decision["verdict"] == "failed"]
    assert {(each["stage"], each["reason"]) for each in broken} == {("nsfw", "error")}
    assert all("odd pictures are too much" in each["detail"] for each in broken)


def test_a_moved_threshold_of_a_filter_asks_it_about_no_photo_again(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = counts_of(curate(config, run, calls=tmp_path / "first"))
    assert len([stage for stage, _ in asked(tmp_path / "first") if stage == "nsfw"]) == 12
    moved = counts_of(curate(config, run, "--set", "people.nsfw.max_score=0.4", calls=tmp_path / "second"))
    assert [stage for stage, _ in asked(tmp_path / "second") if stage == "nsfw"] == []
    assert moved["nsfw"] == (12, 0, before["nsfw"][1], before["nsfw"][3])


def test_a_stage_of_photos_stands_before_detection_since_its_people_would_stay_in() -> None:
    stages = [stage for stage in STAGES if issubclass(stage, ChainStage)]
    refuse_misplaced(stages)
    with pytest.raises(TypeError, match="stage nsfw: a PhotoStage must stand before detection"):
        refuse_misplaced([*stages[1:], Nsfw])
