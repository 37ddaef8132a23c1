"""What bases promise: schedules lead back to the picture, latents are scaled as the VAE states, one base."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.training_utils import compute_snr

from tests.drawn_training import SDXL, built, samples, tiny
from training.bases import BASES, base_class
from training.bases.schedules import TIMESTEPS, FlowSchedule, StatedSchedule
from training.bases.sdxl import Sdxl
from training.bases.vae import DiffusersVae
from training.generation.pipeline import PersonaPipeline
from training.generation.sampler import sample_latents
from training.latents import LatentStatement, statement_of
from training.randomness import streams
from training.recipes import recipe_of
from training.run_settings import PictureSettings, SamplingSettings


def test_flow_leads_from_noise_to_the_latents_when_the_prediction_is_right() -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    schedule = FlowSchedule(shift=3.0)
    x, solver = noise, schedule.solver(7, noise.device)
    for time in solver.timesteps:
        torch.testing.assert_close(x, schedule.noised(latents, noise, time.expand(1)), rtol=1e-4, atol=1e-4)
        x = solver.step(schedule.target(latents, noise, time), time, x).prev_sample
    torch.testing.assert_close(x, latents, rtol=1e-4, atol=1e-4)


def test_flow_draws_times_between_the_picture_and_noise_and_a_shift_leans_to_noise() -> None:
    drawn = streams(0, 0, [f"person-{number}" for number in range(2000)])
    plain, shifted = (FlowSchedule(shift).times(drawn) for shift in (1.0, 3.0))
    for times in (plain, shifted):
        assert 0 < times.min() < times.max() < TIMESTEPS
    assert plain.median().item() == pytest.approx(TIMESTEPS / 2, abs=40)
    assert shifted.median().item() == pytest.approx(TIMESTEPS * 3 / 4, abs=40)


KINDS = {
    "epsilon": StatedSchedule(),
    "v": StatedSchedule(prediction="v"),
    "v to no signal": StatedSchedule(prediction="v", zero_snr=True),
    "linear betas": StatedSchedule(first=0.0001, last=0.02, form="linear"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_leads_near_the_latents_when_the_prediction_is_right(kind: str) -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    schedule = KINDS[kind].build(None)
    solver = schedule.solver(50, noise.device)
    x = schedule.noised(latents, noise, solver.timesteps[:1])
    for time in solver.timesteps:
        x = solver.step(schedule.target(latents, noise, time.expand(1)), time, x).prev_sample
    torch.testing.assert_close(x, latents, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_targets_and_weights_are_those_of_diffusers(kind: str) -> None:
    stated = KINDS[kind]
    theirs = DDPMScheduler(
        beta_start=stated.first, beta_end=stated.last, beta_schedule=stated.form,
        rescale_betas_zero_snr=stated.zero_snr,
    )  # fmt: skip
    latents, noise = torch.randn(2, 1000, 1, 2, 2)
    times = torch.arange(TIMESTEPS)
    ours = stated.build(5.0)
    close = {"rtol": 1e-3, "atol": 3e-5}  # they compute in float32
    torch.testing.assert_close(
        ours.noised(latents, noise, times), theirs.add_noise(latents, noise, times), **close
    )
    is_v = stated.prediction == "v"
    velocity = theirs.get_velocity(latents, noise, times)
    torch.testing.assert_close(ours.target(latents, noise, times), velocity if is_v else noise, **close)
    snr = compute_snr(theirs, times)
    weights = snr.clamp(max=5) / (snr + 1 if is_v else snr)
    torch.testing.assert_close(ours.weighted(torch.ones(TIMESTEPS), times), weights, **close)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
         StatedSchedule()),
        (DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
         StatedSchedule("v", 0.0001, 0.02, "linear", True)),
        (FlowMatchEulerDiscreteScheduler(shift=2.5), StatedSchedule("flow", shift=2.5)),
    ],
)  # fmt: skip
def test_what_a_unet_predicts_is_read_from_the_scheduler_of_its_folder(
    scheduler: Any, expected: StatedSchedule, tmp_path
) -> None:
    scheduler.save_pretrained(tmp_path / "scheduler")
    assert StatedSchedule.of_folder(tmp_path) == expected
    base = recipe_of("ip_adapter", {"sdxl": {"folder": str(tmp_path)}}).base
    assert isinstance(base, Sdxl)
    times = torch.tensor([500])
    ours, wanted = base.schedule(), expected.build(None)
    latents, noise = torch.randn(2, 1, 4, 2, 2)
    for made in ("noised", "target"):
        one, other = (getattr(schedule, made)(latents, noise, times) for schedule in (ours, wanted))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("scheduler", "denoising", "message"),
    [
        (DDPMScheduler(prediction_type="sample"), {}, "scheduler_config.json: it predicts sample"),
        (DDPMScheduler(beta_schedule="squaredcos_cap_v2"), {}, "DDPMScheduler with the betas squaredcos_cap"),
        (EDMEulerScheduler(), {}, "EDMEulerScheduler with the betas"),
        (DDPMScheduler(num_train_timesteps=500), {}, "500 timesteps; a training has 1000"),
        (DDPMScheduler(), {"prediction": "v"},
         "prediction is v, the scheduler states epsilon .*: a frozen UNet learns no other; tune_unet"),
        (DDPMScheduler(), {"prediction": "flow", "tune_unet": True, "min_snr": 5.0}, "min_snr weights"),
        (DDPMScheduler(), {"zero_snr": True, "tune_unet": True}, "without any signal epsilon says nothing"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_trained_is_refused_in_one_line(
    scheduler: Any, denoising: dict[str, Any], message: str, tmp_path
) -> None:
    scheduler.save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match=message) as caught:
        recipe_of("ip_adapter", {"sdxl": {"folder": str(tmp_path)}, "denoising": denoising})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_a_unet_learns_and_samples_by_each_prediction(prediction: str) -> None:
    recipe = tiny("visual_persona", denoising={"prediction": prediction, "tune_unet": True})
    module = built(recipe)
    batch = samples(recipe, ["person-000-a", "person-001-a"])
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(15):
        loss = module(batch.fields, batch.streams, drop=False).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    pipeline = PersonaPipeline(recipe, module)
    identity = pipeline.identity(batch.fields)
    conditions = pipeline.conditions(batch.fields["caption_ids"], identity, (64, 64))
    latents = sample_latents(
        module.denoiser, conditions, torch.randn(2, 4, 8, 8), SamplingSettings(steps=4, guidance=2.0)
    )
    assert latents.isfinite().all()


def test_a_vae_of_a_folder_has_the_factor_scale_and_shift_that_it_states(tmp_path) -> None:
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 6}
    vae = AutoencoderKL(
        **sizes,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        scaling_factor=0.36,
        shift_factor=0.11,
    )
    vae.save_pretrained(tmp_path)
    found = DiffusersVae.of_folder(tmp_path)
    assert (found.factor, found.channels, found.scale_and_shift()) == (2, 6, (0.36, 0.11))
    assert found.identity()[2:] == (0.36, 0.11)
    mean, std = found.moments(found.build(), torch.zeros(1, 16, 32, 3, dtype=torch.uint8))
    assert mean.shape == std.shape == (1, 6, 8, 16)
    assert found.pictures(found.build(), mean).shape == (1, 16, 32, 3)


def test_latents_of_another_shift_are_refused_and_a_statement_from_before_shifts_is_read() -> None:
    about = {
        "vae": "sdxl/vae", "sha256": "ab", "scaling_factor": 0.13025, "channels": 4, "sizes": [[64, 64]],
        "precision": "fp32", "dtype": "float16", "moments": "mean and std",
    }  # fmt: skip
    stated = statement_of({"latents": about}, "shards")
    assert isinstance(stated, LatentStatement)
    assert (stated.factor, stated.shift) == (8, 0.0)
    vae = tiny("ip_adapter").base.vae.identity()._replace(sha256="ab", scaling_factor=0.13025)
    stated.check_vae(vae, "shards")
    with pytest.raises(ValueError, match=r"this run's is .*shift 0\.1\)"):
        stated.check_vae(vae._replace(shift=0.1), "shards")


def test_a_recipe_stands_on_one_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASES, "other", BASES["sdxl"])
    with pytest.raises(ValueError, match="it stands on one base, and sdxl and other are named"):
        recipe_of("ip_adapter", {"sdxl": SDXL, "other": {}})


@pytest.mark.parametrize("name", BASES)
def test_the_catalogue_names_bases_by_their_names(name: str) -> None:
    assert base_class(name).name == name


def test_a_folder_that_states_no_sizes_has_those_that_diffusers_takes(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.5}')
    found = DiffusersVae.of_folder(tmp_path)
    assert (found.factor, found.channels, found.scale_and_shift()) == (1, 4, (0.5, 0.0))


def test_sizes_of_sdxl_in_a_folder_are_those_of_its_configs(tmp_path) -> None:
    for name, config in (
        ("unet", {"block_out_channels": [8, 8]}),
        ("vae", {"scaling_factor": 0.13, "block_out_channels": [8, 8, 8], "latent_channels": 8}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    base = recipe_of("ip_adapter", {"sdxl": {"folder": str(tmp_path)}}).base
    assert (base.vae.factor, base.vae.channels, base.size_step_px) == (4, 8, 8)


def test_a_statement_of_the_usual_vae_is_what_it_was_before_others_were_known() -> None:
    known = {"vae": "sdxl", "sha256": "0" * 64, "scaling_factor": 0.13, "channels": 4, "sizes": [[64, 64]]}
    usual, other = (
        LatentStatement.model_validate(known | more).stated() for more in ({}, {"factor": 16, "shift": 0.1})
    )
    assert usual.keys() == known.keys() | {"precision", "dtype", "moments"}
    assert (other["factor"], other["shift"]) == (16, 0.1)


def test_pictures_of_a_base_without_scales_of_identity_are_refused_before_the_first_step() -> None:
    recipe = recipe_of("ip_adapter", {})
    recipe.base.check_identity_scale(0.7)
    assert PictureSettings.model_validate({"sampling": {"steps": 10}}).sampling.identity_scale == 1
    with pytest.raises(ValueError, match="knows none but 1"):
        _Unscaled(recipe.base.settings, recipe.base.denoising).check_identity_scale(0.7)


class _Unscaled(Sdxl):
    """A base whose network has no scale of identity."""

    scales_identity = False


def test_a_scheduler_s_config_that_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"scheduler_config\.json: is no scheduler's config"):
        StatedSchedule.of_folder(tmp_path)
