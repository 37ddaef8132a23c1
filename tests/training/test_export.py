"""Adapters in the published layout and back, read as its publishers read it."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from tests.drawn_training import DECODER, built, samples, tiny
from training.bases.sdxl_parts import build_unet
from training.export import export_merged, verify_export
from training.method_settings import DecoderSettings
from training.models.identity_attention import cross_attentions
from training.recipes import CATALOGUE
from training.recipes.recipe import lora_file
from training.released_layout import LayoutError, Shapes, check_released, read_released

# C of the 70 cross-attention layers of SDXL base: down, up, mid.
SDXL_WIDTHS = (640,) * 4 + (1280,) * 20 + (1280,) * 30 + (640,) * 6 + (1280,) * 10


def processor_shapes(widths: Sequence[int], context_width: int) -> Shapes:
    """Keys and shapes of the group ip_adapter for cross-attention layers of these widths, in order."""
    return {
        f"ip_adapter.{2 * place + 1}.{name}.weight": (width, context_width)
        for place, width in enumerate(widths)
        for name in ("to_k_ip", "to_v_ip")
    }


def visual_persona_layout(settings: DecoderSettings, widths: Sequence[int]) -> Shapes:
    """Keys and shapes of a released file, from numbers alone. `widths` are those of cross-attention layers,
    in the order down, up, mid."""
    width, feature, mlp = settings.width, settings.feature_width, settings.mlp_width
    shapes: Shapes = {
        "pos_embed": (1, settings.queries, width),
        "new_pos_embed": (settings.regions, settings.queries, width),
        "transformer.norm.weight": (width,),
        "transformer.norm.bias": (width,),
    }
    for number in range(settings.depth):
        layer: Shapes = {f"norm{norm}.{part}": (width,) for norm in (1, 2, 3) for part in ("weight", "bias")}
        layer |= {
            "cross_attn.q_proj_weight": (width, width),
            "cross_attn.k_proj_weight": (width, feature),
            "cross_attn.v_proj_weight": (width, feature),
            "cross_attn.out_proj.weight": (width, width),
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.out_proj.weight": (width, width),
            "mlp.0.weight": (mlp, width),
            "mlp.0.bias": (mlp,),
            "mlp.3.weight": (width, mlp),
            "mlp.3.bias": (width,),
        }
        shapes |= {f"transformer.layers.{number}.{name}": shape for name, shape in layer.items()}
    named = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    return named | processor_shapes(widths, width)


SUFFIXES = pytest.mark.parametrize("suffix", [".bin", ".safetensors"])


def losses(recipe, module) -> torch.Tensor:
    batch = samples(recipe, ["ann-a", "bob-a"])
    with torch.no_grad():
        return module(batch.fields, batch.streams)


def moved(recipe, seed: int):
    """A module whose adapter is no longer what it started as."""
    module = built(recipe, seed)
    with torch.no_grad():
        for parameter in recipe.adapter(module).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module


@SUFFIXES
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("visual_persona", {}),
        ("visual_persona", {"stage": "shared_queries"}),
        ("visual_persona", {"denoising": {"tune_unet": True}}),
        ("ip_adapter", {}),
        ("flux2_reference", {"denoising": {"lora": {"rank": 4, "alpha": 8.0}}}),
        ("flux2_reference", {"denoising": {"lora": None, "tune_transformer": True}}),
    ],
)
def test_an_exported_adapter_read_strictly_gives_the_same_loss(name, changed, suffix, tmp_path) -> None:
    recipe = tiny(name, **changed)
    trained = moved(recipe, seed=1)
    file = tmp_path / f"weight{suffix}"
    recipe.export(recipe.adapter(trained), file)

    fresh = built(recipe, seed=1)
    before = losses(recipe, fresh)
    recipe.load_export(fresh, file)
    assert torch.equal(losses(recipe, fresh), losses(recipe, trained))
    assert not torch.equal(before, losses(recipe, trained))
    again = tmp_path / f"again{suffix}"
    recipe.export(recipe.adapter(fresh), again)
    first, second = read_released(file), read_released(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_shared_queries_are_published_as_the_five_sets_that_they_stand_for(tmp_path) -> None:
    first, second = (tiny("visual_persona", stage=stage) for stage in ("shared_queries", "region_queries"))
    trained = moved(first, seed=1)
    first.export(first.adapter(trained), tmp_path / "weight.bin")
    reader = built(second, seed=1)
    second.load_export(reader, tmp_path / "weight.bin")
    torch.testing.assert_close(losses(second, reader), losses(first, trained), rtol=1e-5, atol=1e-6)


def test_the_full_size_model_has_exactly_the_published_keys_and_shapes() -> None:
    recipe = tiny("visual_persona", sdxl={}, dino={}, decoder={})
    with torch.device("meta"):
        module = recipe.build(torch.bfloat16)
    adapter = recipe.adapter(module)
    released = recipe.released(adapter)
    found = {key: tuple(parameter.shape) for key, parameter in released.items()}
    assert found == visual_persona_layout(DecoderSettings(), SDXL_WIDTHS)
    # As published: 522.9M parameters in the decoder and 340.8M in 140 projections.
    trained = [(path, p) for path, p in adapter.items() if p.requires_grad]
    decoder = sum(p.numel() for path, p in trained if path.startswith("identity."))
    projections = [p.numel() for path, p in trained if path.startswith("denoiser.")]
    assert (round(decoder / 1e5), round(sum(projections) / 1e5), len(projections)) == (5229, 3408, 140)
    assert [2 * i + 1 for i in range(70)] == sorted(
        {int(key.split(".")[1]) for key in released if key.startswith("ip_adapter.")}
    )
    # Our order of the layers is that in which diffusers lists its attention processors.
    listed = [name for name in module.denoiser.unet.attn_processors if ".attn2." in name]
    assert [f"{name}.processor" for name, _ in cross_attentions(module.denoiser.unet)] == listed


def test_the_layout_from_numbers_alone_is_what_a_small_export_has(tmp_path) -> None:
    recipe = tiny("visual_persona")
    module = built(recipe)
    recipe.export(recipe.adapter(module), tmp_path / "weight.safetensors")
    widths = [attn.to_k.out_features for _, attn in cross_attentions(module.denoiser.unet)]
    layout = visual_persona_layout(DecoderSettings(**DECODER), widths)
    check_released(load_file(tmp_path / "weight.safetensors"), layout, "weight.safetensors")


@SUFFIXES
def test_a_file_that_differs_is_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    recipe = tiny("ip_adapter")
    module = built(recipe)
    good = tmp_path / "good.safetensors"
    recipe.export(recipe.adapter(module), good)
    tensors = load_file(good)

    def refused(tensors: dict[str, torch.Tensor]) -> str:
        file = tmp_path / f"bad{suffix}"
        if suffix == ".safetensors":
            save_file(tensors, file)
        else:
            groups: dict[str, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                group, key = name.split(".", 1)
                groups.setdefault(group, {})[key] = tensor
            torch.save(groups, file)
        with pytest.raises(LayoutError) as caught:
            recipe.load_export(module, file)
        return str(caught.value)

    missing = {name: tensor for name, tensor in tensors.items() if name != "image_proj.norm.bias"}
    assert "norm.bias is missing" in refused(missing)
    assert "more.weight is not of the layout" in refused({**tensors, "image_proj.more.weight": torch.ones(1)})
    assert "norm.bias is [3], not [32]" in refused({**tensors, "image_proj.norm.bias": torch.ones(3)})
    even = {name.replace("ip_adapter.1.", "ip_adapter.2."): tensor for name, tensor in tensors.items()}
    assert "1.to_k_ip.weight is missing" in refused(even)


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"image_proj": {"x": Evil()}}, tmp_path / "weight.bin")
    (tmp_path / "text.bin").write_text("not a checkpoint")
    for file in ("weight.bin", "text.bin", "none.bin", "none.safetensors"):
        with pytest.raises(LayoutError, match=file) as caught:
            read_released(tmp_path / file)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_an_adapter_of_another_shape_is_refused_in_one_line(name: str) -> None:
    recipe = tiny(name)
    module = built(recipe)
    given = {path: p.detach().clone() for path, p in recipe.adapter(module).items()}
    path = next(path for path in given if path.startswith("denoiser."))
    with pytest.raises(ValueError, match=rf"{re.escape(path)} is \[2\], not"):
        recipe.load_adapter(module, {**given, path: torch.ones(2)})


LORA = [None, {"rank": 3}, {"rank": 3, "alpha": 6.0, "dora": True}]


@pytest.mark.parametrize("lora", LORA, ids=["plain", "lora", "dora"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_diffusers_computes_the_same_prediction_from_our_files(prediction, lora, tmp_path) -> None:
    recipe = tiny("ip_adapter", denoising={"prediction": prediction, "lora": lora})
    module, file = moved(recipe, seed=1), tmp_path / "weight.safetensors"
    recipe.export(recipe.adapter(module), file)

    pipeline = StableDiffusionXLPipeline(
        vae=recipe.base.vae.build(), text_encoder=None, text_encoder_2=None, tokenizer=None,
        tokenizer_2=None, unet=build_unet(recipe.base.settings), scheduler=DDPMScheduler(),
    )  # fmt: skip
    if lora is not None:
        pipeline.load_lora_weights(str(lora_file(file)))
    groups = _nested(load_file(file))
    pipeline.load_ip_adapter(groups, subfolder=None, weight_name=None, image_encoder_folder=None)

    batch = samples(recipe, ["ann-a", "bob-a", "cem-a"])
    latents, noise = torch.randn(2, 3, 4, 8, 8)
    times = torch.tensor([20, 500, 980])
    if prediction == "flow":
        share = (times / 1000)[:, None, None, None]
        noised = (1 - share) * latents + share * noise
    else:
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        noised = DDPMScheduler(**betas).add_noise(latents, noise, times)
    everyone = torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        denoiser = module.denoiser
        text = denoiser.text(batch.fields)
        tokens = module.tokens(batch.fields["reference"], everyone)
        ours = denoiser.predict(denoiser.schedule.noised(latents, noise, times), times, text, tokens)
        pixels = module.normalise(batch.fields["reference"], everyone)
        embeds = module.encoder(pixel_values=pixels).image_embeds
        conditions = {"text_embeds": text[1], "time_ids": text[2], "image_embeds": [embeds[:, None]]}
        theirs = pipeline.unet(
            noised, times, encoder_hidden_states=text[0], added_cond_kwargs=conditions
        ).sample
    assert (theirs - ours).norm() <= 1e-5 * ours.norm()
    plain = build_unet(recipe.base.settings)
    with torch.no_grad():
        without = plain(noised, times, encoder_hidden_states=text[0], added_cond_kwargs=conditions).sample
    assert (without - ours).norm() > 1e-2 * ours.norm()  # so the files count


@pytest.mark.parametrize("lora", LORA[1:], ids=["lora", "dora"])
def test_lora_beside_the_adapter_and_within_the_base_gives_the_same_loss(lora, tmp_path) -> None:
    recipe = tiny("visual_persona", denoising={"lora": lora})
    trained = moved(recipe, seed=1)
    beside, within = tmp_path / "beside.safetensors", tmp_path / "within.safetensors"
    recipe.export(recipe.adapter(trained), beside)
    adapter = {name: p.detach() for name, p in recipe.adapter(trained).items()}
    export_merged(recipe, adapter, within)
    verify_export(recipe, adapter, beside)
    verify_export(recipe, adapter, within, merged=True)

    expected = losses(recipe, trained)
    reader = built(recipe, seed=1)
    recipe.load_export(reader, beside)
    torch.testing.assert_close(losses(recipe, reader), expected, rtol=1e-5, atol=0)
    plain = tiny("visual_persona")
    reader = built(plain, seed=1)
    recipe.load_export(reader, within)
    torch.testing.assert_close(losses(plain, reader), expected, rtol=1e-5, atol=0)
    reader = built(plain, seed=1)
    recipe.load_export(reader, beside, lora=False)
    assert not torch.allclose(losses(plain, reader), expected, rtol=1e-5, atol=0)


def test_a_run_without_lora_has_none_to_merge(tmp_path) -> None:
    recipe = tiny("visual_persona")
    with pytest.raises(ValueError, match=r"--merge-lora: the run has trained no LoRA"):
        export_merged(recipe, recipe.adapter(built(recipe)), tmp_path / "weight.safetensors")


def _nested(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, key = name.split(".", 1)
        groups.setdefault(group, {})[key] = tensor
    return groups
