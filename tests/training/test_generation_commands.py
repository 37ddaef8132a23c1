"""`persona generate`, and the pictures that a training makes of people whom it holds out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from persona import main
from tests.drawn_foreign import write_img2dataset
from tests.drawn_pairs import write_people
from tests.drawn_training import SETTINGS
from training.generation.validation_pictures import picture_grid

KEY = f"{3:016x}-a"


def persona(*words: Any) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("dataset") / "shards")


def config(folder: Path, **loop: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.yaml"
    settings = {
        "recipe": "visual_persona",
        "method": SETTINGS["visual_persona"],
        "data": {"height_px": 64, "width_px": 64, "batch": 2, "validation_batches": 1},
        "loop": {"steps": 3, "precision": "fp32", **loop},
        "pictures": {"people": 2, "sampling": {"steps": 2}},
        "compile": False,
    }
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--shards", dataset, "--validation", dataset, "--out", out]
    assert persona("train", config(out.parent, pictures_every=2), *words) == 0
    return out


def generated(run: Path, dataset: Path, out: Path, *words: Any) -> int:
    sizes = ["--height", 64, "--width", 64, "--steps", 2, "--prompt", "A woman waves."]
    model = ["--checkpoint", run, "--sample", f"{dataset}:{KEY}"]
    return persona("generate", *model, *sizes, "--out", out, *words)


def test_a_training_shows_reference_target_and_generated_in_a_grid(run: Path) -> None:
    grids = sorted(path.name for path in (run / "pictures").iterdir())
    assert grids == [f"step-0000000{step}{of}.jpg" for step in (2, 3) for of in ("-averaged", "")]
    with Image.open(run / "pictures" / grids[0]) as grid:
        assert grid.height == 2 * 192 + 4


def test_making_pictures_does_not_change_the_training(run: Path, dataset: Path, tmp_path: Path) -> None:
    words = ["--shards", dataset, "--validation", dataset, "--out", tmp_path / "run"]
    assert persona("train", config(tmp_path), *words) == 0
    assert not (tmp_path / "run" / "pictures").exists()

    def losses(folder: Path) -> list[float]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [line.get("loss") or line["validation_loss"] for line in lines]

    assert losses(tmp_path / "run") == losses(run)


def test_a_picture_says_what_it_was_made_with_and_can_be_made_again(
    run: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "made.png"
    assert generated(run, dataset, out, "--seed", 5, "--pictures", 2) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["files"] == [str(tmp_path / "made-1.png"), str(tmp_path / "made-2.png")]
    with Image.open(told["files"][1]) as picture:
        said = json.loads(picture.text["persona"])  # type: ignore[attr-defined]
        second = np.asarray(picture)
    assert said["seed"] == 6
    assert said["prompt"] == "A woman waves."
    assert generated(run, dataset, tmp_path / "again.png", "--seed", 6) == 0
    with Image.open(tmp_path / "again.png") as picture:
        assert np.abs(np.asarray(picture).astype(int) - second).max() <= 1


def test_long_work_says_a_line_now_and_then(
    run: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.generation.command.SAID_EVERY_S", 0.0)
    monkeypatch.setattr("training.reports.SAID_EVERY_S", 0.0)
    assert generated(run, dataset, tmp_path / "a.png") == 0
    assert "step 1 of 2\n" in capsys.readouterr().err
    words = ["--shards", dataset, "--out", tmp_path / "run"]
    assert persona("train", config(tmp_path, read_every=50), *words) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0].split(":")[0].strip() for line in told if line.startswith("step ")][:2] == [
        "step 1/3",
        "step 2/3",
    ]


def test_without_a_size_pictures_are_of_the_size_that_was_trained_and_one_far_from_it_is_said(
    run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", run, "--sample", f"{dataset}:{KEY}", "--steps", 1, "--prompt", "A woman."]
    assert persona("generate", *words, "--out", tmp_path / "a.png") == 0
    assert "making 1 of 64 × 64 px in 1 steps" in (told := capsys.readouterr().err)
    assert "far from" not in told
    assert persona("generate", *words, "--height", 160, "--out", tmp_path / "b.png") == 0
    assert "64 × 160 px is far from the 64 × 64 px that it was trained on" in capsys.readouterr().err
    sizes = []
    for name in ("a", "b"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes.append(picture.size)
    assert sizes == [(64, 64), (64, 160)]


def test_a_published_file_generates_by_its_config(run: Path, dataset: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    assert persona("export", run, "--out", weights) == 0
    words = [
        "--sample",
        f"{dataset}:{KEY}",
        "--height",
        64,
        "--width",
        64,
        "--steps",
        2,
        "--prompt",
        "A man.",
    ]
    model = ["generate", "--weights", weights, "--config", config(tmp_path)]
    assert persona(*model, *words, "--out", tmp_path / "a.png") == 0
    from_run = ["generate", "--checkpoint", run, *words, "--out", tmp_path / "b.png"]
    assert persona(*from_run) == 0
    assert (tmp_path / "a.png").stat().st_size > 0
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "made.jpg"], "--out made.jpg: must end in .png"),
        (["--regions", "hands"], "unknown region 'hands'"),
        (["--regions", "head=two"], "--regions head=two: must be NAME or NAME=NUMBER"),
        (["--steps", "0"], "--steps: Input should be greater than or equal to 1"),
        (["--height", "100"], "100 × 64 px: height and width must be multiples of 16"),
        (["--sample", "/nowhere:a"], "/nowhere"),
        (["--checkpoint", "/nowhere"], "/nowhere: no checkpoint"),
        (["--config", "visual_persona_demo"], "--config: a checkpoint says its recipe itself"),
        (["--pictures", "0"], "--pictures 0: must be at least 1"),
    ],
)
def test_what_cannot_be_generated_is_one_line(
    words: list[str], message: str, run: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    assert generated(run, dataset, tmp_path / "made.png", *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_an_unknown_sample_names_one_that_there_is(run: Path, dataset: Path, tmp_path: Path, capsys) -> None:
    assert generated(run, dataset, tmp_path / "made.png", "--sample", f"{dataset}:nobody") == 2
    assert f"no sample nobody; the first of 12 is {0:016x}-a" in capsys.readouterr().err


def test_a_sample_of_others_has_no_label_maps_and_the_line_says_what_to_do(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write_img2dataset(tmp_path / "theirs")
    assert persona("shards", "index", theirs) == 0
    words = ["--checkpoint", run, "--sample", f"{theirs}:000000001", "--prompt", "A woman waves."]
    assert persona("generate", *words, "--out", tmp_path / "a.png") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "sample 000000001 has no label maps" in said[0]
    assert "--photo" in said[0]


def test_a_grid_keeps_the_proportions_of_its_columns() -> None:
    wide, tall = np.zeros((2, 32, 64, 3), np.uint8), np.full((2, 64, 32, 3), 200, np.uint8)
    grid = picture_grid([wide, tall], height_px=64)
    assert grid.size == (128 + 4 + 32, 64 + 4 + 64)
    assert grid.getpixel((10, 10)) == (0, 0, 0)
    assert grid.getpixel((140, 10)) == (200, 200, 200)
    with pytest.raises(ValueError, match="columns of one length"):
        picture_grid([wide, tall[:1]])
