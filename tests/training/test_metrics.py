"""What a run writes of itself: TensorBoard's files beside metrics.jsonl, and Weights & Biases if asked."""

import importlib.machinery
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from persona import main
from tests.drawn_pairs import write_people
from tests.drawn_training import SETTINGS, DrawnBatches, built, tiny
from tests.train_tiny import training
from training.checkpoint import checkpoints_in, load_checkpoint
from training.first_checks import check_wandb
from training.loop import Training
from training.ranks import Ranks
from training.run_settings import LoopSettings


def test_tensorboard_has_the_curves_of_metrics_jsonl_also_after_a_resume(tmp_path: Path) -> None:
    for steps in (2, 4):
        training(tmp_path, Ranks(), steps=steps, read_every=1).run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curves = {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert {"loss", "grad_norm", "lr", "samples_per_s", "data_wait"} <= curves.keys()
    for line in lines:
        for name, value in line.items():
            if name != "step":
                assert curves[name][int(line["step"])] == pytest.approx(value, rel=1e-6)


def test_a_run_shows_its_config_and_its_pictures_of_both_weights_and_of_fixed_prompts(tmp_path: Path) -> None:
    people = write_people(tmp_path / "shards")
    config = {
        "recipe": "visual_persona",
        "method": SETTINGS["visual_persona"],
        "data": {"height_px": 64, "width_px": 64, "batch": 2, "validation_batches": 1},
        "loop": {"epochs": 0.5, "precision": "fp32", "pictures_every": "0.5 epochs", "read_every": 2,
                 "ema_decay": 0.9, "optimiser": {"lr": 1.0e-2, "warmup_steps": 0}},
        "pictures": {"people": 1, "sampling": {"steps": 2, "guidance": 1.0},
                     "fixed": [{"sample": f"{people}:{3:016x}-a", "prompt": "A woman waves."},
                               {"sample": f"{people}:{4:016x}-a", "prompt": "A man runs."}]},
        "compile": False,
    }  # fmt: skip
    file, out = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(config))
    words = ["--shards", str(people), "--validation", str(people), "--quiet"]
    assert main(["train", str(file), "--out", str(out), *words]) == 0
    # Half of twelve people in twos: three steps.
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    by_time = [{name: value for name, value in line.items() if name.startswith("loss_at/")} for line in lines]
    assert by_time[0] == {}
    assert 1 <= len(by_time[1]) <= 4
    assert {name[-3:] for name in by_time[1]} <= {f"0.{tenth}" for tenth in range(10)}
    # Both steps of a read are in it.
    both = (lines[0]["loss"] + lines[1]["loss"]) / 2
    assert min(by_time[1].values()) <= both <= max(by_time[1].values())
    assert lines[0]["smoothed_loss"] == pytest.approx(lines[0]["loss"])
    assert min(lines[0]["loss"], lines[1]["loss"]) < lines[1]["smoothed_loss"]

    names = {
        "pictures/last": "step-00000003.jpg",
        "pictures/averaged": "step-00000003-averaged.jpg",
        "fixed/last": "step-00000003-fixed.jpg",
        "fixed/averaged": "step-00000003-averaged-fixed.jpg",
    }
    grids = {name: np.asarray(Image.open(out / "pictures" / shown_as)) for name, shown_as in names.items()}
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for name, grid in grids.items():
        (shown,) = events.Images(name)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))), grid)
    # Rows of the settings, not of the validation: two, of a reference and what is made of it.
    assert grids["fixed/last"].shape[0] > 2 * 192 > grids["pictures/last"].shape[0]
    for kind in ("pictures", "fixed"):
        assert not np.array_equal(grids[f"{kind}/last"], grids[f"{kind}/averaged"])

    text = (out / "config.yaml").read_text()
    (told,) = events.Tensors("config/text_summary")
    shown_lines = told.tensor_proto.string_val[0].decode().splitlines()
    assert [line.removeprefix("    ") for line in shown_lines] == text.splitlines()
    # It holds every key, begins the same run again, and is then itself, byte for byte.
    assert yaml.safe_load(text)["method"]["dropout"]["text"] == 0.05
    again = tmp_path / "again"
    assert main(["train", "--config", str(out / "config.yaml"), "--out", str(again), *words]) == 0
    assert (again / "config.yaml").read_bytes() == (out / "config.yaml").read_bytes()
    losses = [
        [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (out, again)
    ]
    assert losses[0] == losses[1]


def test_averaged_weights_are_in_place_while_they_are_pictured_and_then_gone(tmp_path: Path) -> None:
    recipe = tiny("visual_persona")
    settings = LoopSettings(steps=3, precision="fp32", pictures_every=2, ema_decay=0.5)
    seen: dict[tuple[int, str], torch.Tensor] = {}

    def pictures(module: torch.nn.Module, step: int, weights: str) -> dict[str, Path]:
        seen[step, weights] = module.identity.new_pos_embed.detach().clone()
        raise RuntimeError("a grid that fails leaves the weights as they were too")

    run = Training(
        recipe, built(recipe), DrawnBatches(recipe, 2), settings, tmp_path, pictures=pictures,
        picture_weights=("last", "averaged"),
    )  # fmt: skip
    run.run()
    saved = load_checkpoint(checkpoints_in(tmp_path / "checkpoints")[-1]).tensors
    assert torch.equal(seen[3, "last"], saved["adapter"]["identity.new_pos_embed"])
    assert torch.equal(seen[3, "averaged"], saved["ema"]["identity.new_pos_embed"])
    assert not torch.equal(seen[3, "last"], seen[3, "averaged"])
    # And the training is that of one that makes no pictures.
    plain = settings.model_copy(update={"pictures_every": None})
    Training(recipe, built(recipe), DrawnBatches(recipe, 2), plain, tmp_path / "plain").run()
    other = load_checkpoint(checkpoints_in(tmp_path / "plain/checkpoints")[-1]).tensors
    for part, named in saved.items():
        assert all(torch.equal(tensor, other[part][name]) for name, tensor in named.items())


class FakeWandb(types.ModuleType):
    """What of wandb's interface is called: `init`, a run's `log` and `finish`, `Image`."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.begun: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.is_finished = False

    def init(self, **words: Any) -> "FakeWandb":
        self.begun = words
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.is_finished = True

    def Image(self, file: str) -> str:  # noqa: N802  as wandb calls it
        return file


def test_wandb_is_given_config_curves_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    check_wandb()
    run = training(tmp_path / "mine", Ranks(), steps=2, pictures_every=2, read_every=1, wandb="people")
    run.run()
    assert fake.begun["project"] == "people"
    assert fake.begun["config"]["loop"]["steps"] == 2
    steps = [step for step, _ in fake.logged]
    assert steps == sorted(steps), "it drops what comes with a step of before"
    curves = {name for _, values in fake.logged for name in values}
    assert {"loss", "smoothed_loss", "validation_loss", "pictures/last"} <= curves
    (picture,) = [values["pictures/last"] for _, values in fake.logged if "pictures/last" in values]
    assert picture == str(tmp_path / "mine/pictures/step-00000002.jpg")
    assert fake.is_finished


def test_wandb_that_is_not_installed_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.first_checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"loop\.wandb: needs the package wandb: pip install wandb"):
        check_wandb()
