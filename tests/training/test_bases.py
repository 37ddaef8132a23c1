"""What bases promise: schedules lead back to the picture, latents are scaled as the VAE states, one base."""

import json

import pytest
import torch
from diffusers import AutoencoderKL

from tests.drawn_training import SDXL, tiny
from training.bases import BASES, base_class
from training.bases.schedules import TIMESTEPS, FlowSchedule, NoiseSchedule
from training.bases.sdxl import Sdxl
from training.bases.vae import DiffusersVae
from training.generation.validation_pictures import PictureSettings
from training.latents import LatentStatement, statement_of
from training.randomness import streams
from training.recipes import recipe_of


def test_flow_leads_from_noise_to_the_latents_when_the_prediction_is_right() -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    schedule = FlowSchedule(shift=3.0)
    x, solver = noise, schedule.solver(7, noise.device)
    for time in solver.timesteps:
        torch.testing.assert_close(x, schedule.noised(latents, noise, time.expand(1)), rtol=1e-4, atol=1e-4)
        x = solver.step(schedule.target(latents, noise), time, x).prev_sample
    torch.testing.assert_close(x, latents, rtol=1e-4, atol=1e-4)


def test_flow_draws_times_between_the_picture_and_noise_and_a_shift_leans_to_noise() -> None:
    drawn = streams(0, 0, [f"person-{number}" for number in range(2000)])
    plain, shifted = (FlowSchedule(shift).times(drawn) for shift in (1.0, 3.0))
    for times in (plain, shifted):
        assert 0 < times.min() < times.max() < TIMESTEPS
    assert plain.median().item() == pytest.approx(TIMESTEPS / 2, abs=40)
    assert shifted.median().item() == pytest.approx(TIMESTEPS * 3 / 4, abs=40)


def test_noise_leads_near_the_latents_when_the_prediction_is_right() -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    schedule = NoiseSchedule()
    solver = schedule.solver(50, noise.device)
    x = schedule.noised(latents, noise, solver.timesteps[:1])
    for time in solver.timesteps:
        x = solver.step(schedule.target(latents, noise), time, x).prev_sample
    torch.testing.assert_close(x, latents, rtol=0, atol=0.05)


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
