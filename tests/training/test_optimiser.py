"""Optimisers by name: bit for bit after a resume, rates and decay by part, and averages of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.drawn_training import built, samples, tiny
from tests.train_tiny import training
from tests.training.test_loop import curve, same_tensors
from training.optimiser import make_optimiser, part_of_model, set_learning_rate
from training.ranks import Ranks
from training.run_settings import LoopSettings, OptimiserSettings, RatesSettings
from training.step import Step, StepRecord

NAMES = ["adamw", "adamw_8bit", "adafactor", "prodigy", "schedule_free"]


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "lr": 1.0 if name == "prodigy" else 1e-3, "warmup_steps": 2, **more}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_with_lora_goes_on_bit_for_bit_with_each_optimiser(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimiser": named(name), "checkpoint_every": 2, "read_every": 1}
    settings["denoising"] = {"lora": {"rank": 2, "dora": name == "adamw"}}
    training(tmp_path / "whole", Ranks(), steps=6, **settings).run()
    for steps in (3, 6):
        training(tmp_path / "parts", Ranks(), steps=steps, **settings).run()
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    last = "checkpoints/step-00000006"
    assert same_tensors(tmp_path / "whole" / last, tmp_path / "parts" / last)


def test_parts_have_the_rates_that_are_asked_for_through_warm_up_and_schedule() -> None:
    module = built(tiny("visual_persona", denoising={"lora": {"rank": 2}}))
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    settings = OptimiserSettings(lr=1e-4, rates=RatesSettings(to_kv=3e-4, lora=1e-3))
    optimiser = make_optimiser(trained, settings)
    set_learning_rate(optimiser, 5e-5)  # half of lr
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    expected = {"identity": 5e-5, "to_kv": 1.5e-4, "lora": 5e-4}
    found = {name: (part_of_model(name), rates[id(p)]) for name, p in trained.items()}
    assert {part for part, _ in found.values()} == expected.keys()
    for part, rate in found.values():
        assert rate == pytest.approx(expected[part])


def test_matrices_and_convolutions_decay_and_norms_biases_queries_and_sizes_do_not() -> None:
    for denoising in ({"tune_unet": True}, {"lora": {"rank": 2, "dora": True}}):
        module = built(tiny("visual_persona", denoising=denoising))
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for parameter in trained.values():
                parameter.fill_(1.0)
                parameter.grad = torch.zeros_like(parameter)
        make_optimiser(trained, OptimiserSettings(lr=0.1, weight_decay=0.1)).step()
        decayed = {name for name, p in trained.items() if not p.equal(torch.ones_like(p))}
        weights = {name for name in trained if name.endswith("weight") and trained[name].ndim > 1}
        assert decayed == weights
        assert not any("norm" in name or "pos_embed" in name or "magnitude" in name for name in decayed)
    assert "denoiser.unet.conv_in.weight" in trained or module.denoiser.unet.conv_in.weight.ndim == 4


def test_averages_of_a_schedule_free_optimiser_are_those_that_its_package_switches_to() -> None:
    recipe = tiny("ip_adapter")
    settings = LoopSettings.model_validate(
        {"steps": 9, "precision": "fp32", "optimiser": named("schedule_free")}
    )
    step, record = Step(built(recipe), (), settings, Ranks()), StepRecord(Ranks())
    batch = samples(recipe, ["ann-a", "bob-a"])
    for number in range(4):
        step(number, [batch], record)
    before = {name: p.detach().clone() for name, p in step.trained.items()}
    averages = step.ema.tensors
    with step.ema.measured():
        assert all(torch.equal(p, averages[name]) for name, p in step.trained.items())
    assert all(torch.equal(p, before[name]) for name, p in step.trained.items())
    with step.averaged():  # as for pictures of the averages
        assert all(torch.equal(p, averages[name]) for name, p in step.trained.items())
    assert all(torch.equal(p, before[name]) for name, p in step.trained.items())
    step.optimiser.eval()
    assert any(not torch.equal(p, before[name]) for name, p in step.trained.items())
    for name, parameter in step.trained.items():
        torch.testing.assert_close(averages[name], parameter.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "prodigy"}, "prodigy finds the rate and multiplies it by lr: 1 is usual"),
        ({"name": "prodigy", "lr": 1.0, "rates": {"lora": 1.0}}, "prodigy finds one rate for all parts"),
        ({"betas": [0.9, 1.0]}, "each must be from 0 to below 1"),
        ({"betas": [-0.1, 0.9]}, "each must be from 0 to below 1"),
        ({"name": "prodigy", "lr": 1.0, "betas": [0.0, 0.9]}, "prodigy needs a first one above 0"),
        ({"name": "schedule_free", "betas": [0.0, 0.9]}, "schedule_free needs a first one above 0"),
        ({"name": "schedule_free", "schedule": "cosine"}, "schedule cosine: schedule_free has none"),
    ],
)
def test_settings_that_an_optimiser_cannot_use_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimiserSettings.model_validate(settings)


@pytest.mark.parametrize("name", ["prodigy", "adafactor"])
def test_optimisers_that_need_whole_parameters_are_refused_where_they_are_sharded(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match=rf"loop\.optimiser\.name: {name} needs whole parameters"):
        make_optimiser({"w": weight}, OptimiserSettings.model_validate(named(name)), in_parts=True)
