"""What a run writes of itself: TensorBoard's files beside metrics.jsonl, and Weights & Biases if asked."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.train_tiny import training
from training.metrics import check_wandb
from training.ranks import Ranks


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


def test_wandb_that_is_not_installed_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("training.metrics.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"loop\.wandb: needs the package wandb: pip install wandb"):
        check_wandb()
