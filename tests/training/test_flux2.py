"""FLUX.2 as a base: what diffusers' own pipeline computes of the same folder, and references as tokens."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.models.transformers.transformer_flux2 import (
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
)
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.drawn_training import FLUX2, built, samples, tiny
from training.bases.flux2 import Flux2Denoiser, sampling_shift
from training.bases.vae import PackedVae, vae_of_folder
from training.generation.pipeline import PersonaPipeline
from training.generation.sampler import sample_latents
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.released_layout import LayoutError
from training.run_settings import SamplingSettings

TEXT_TOKENS = 24
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<|no|>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX.2 klein in diffusers' layout, with a text encoder deeper than what is read of it."""
    torch.manual_seed(3)
    place = tmp_path_factory.mktemp("klein")
    letters = {chr(code): code - 32 for code in range(33, 127)} | {"Ġ": 0}
    words = {word: len(letters) + n for n, word in enumerate(("<|pad|>", "<|user|>", "<|no|>"))}
    tokenizer = Qwen2TokenizerFast(
        vocab=letters | words, merges=[], unk_token="<|pad|>", pad_token="<|pad|>", eos_token="<|pad|>",
        additional_special_tokens=["<|user|>", "<|no|>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    text = Qwen3Config(
        vocab_size=128, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, intermediate_size=32,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4
    )
    nn.init.normal_(vae.bn.running_mean)
    nn.init.uniform_(vae.bn.running_var, 0.5, 2)
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, timestep_guidance_channels=8, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    pipeline = Flux2KleinPipeline(scheduler, vae, Qwen3ForCausalLM(text), tokenizer, transformer)
    pipeline.tokenizer_max_length = TEXT_TOKENS
    pipeline.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Flux2KleinPipeline:
    pipeline = Flux2KleinPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def on_folder(folder: Path, **changed: Any) -> Recipe:
    base = {"folder": str(folder), "text_layers": [1, 3], "text_tokens": TEXT_TOKENS}
    return tiny("flux2_reference", **{"flux2": base, "prompt": "{caption}", "references": "body", **changed})


@pytest.fixture(scope="module")
def ours(folder: Path) -> PersonaPipeline:
    recipe = on_folder(folder, body_px=[80, 64])
    module = built(recipe)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    return PersonaPipeline(recipe, module.eval())


def fields_of(picture: np.ndarray) -> dict[str, Tensor]:
    """A reference that fills its place."""
    return {"body": torch.from_numpy(picture)[None], "body_size": torch.tensor([picture.shape[:2]])}


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)


def test_sizes_are_those_of_the_folder_s_configs(folder: Path, ours: PersonaPipeline) -> None:
    base = ours.recipe.base
    assert (base.vae.factor, base.vae.channels, base.size_step_px) == (16, 16, 16)
    denoiser = ours.module.denoiser
    assert len(denoiser.blocks()) == 4
    assert len(denoiser.text_encoder.model.layers) == 3  # nothing reads the fourth
    assert base.latent_shape(64, 32) == (16, 4, 2)


def test_text_is_what_the_pipeline_of_diffusers_makes_of_it(
    ours: PersonaPipeline, theirs: Flux2KleinPipeline
) -> None:
    prompts = ["A man waves.", "", "A caption that is longer than there is room for in its tokens"]
    (found,) = ours.module.denoiser.text({"caption_ids": ours.caption_ids(prompts)})
    expected = theirs._get_qwen3_prompt_embeds(
        theirs.text_encoder, theirs.tokenizer, prompts, max_sequence_length=TEXT_TOKENS,
        hidden_states_layers=[1, 3],
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (dropped,) = ours.module.denoiser.keep_text((found,), torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(dropped, expected[1:2].expand(3, -1, -1), rtol=1e-5, atol=1e-5)


def test_a_generation_is_that_of_the_pipeline_of_diffusers(
    ours: PersonaPipeline, theirs: Flux2KleinPipeline, picture: np.ndarray
) -> None:
    noise = torch.randn(1, 16, 4, 2)
    expected = theirs(
        prompt="A man waves.", height=64, width=32, image=[Image.fromarray(picture)], latents=noise,
        num_inference_steps=3, guidance_scale=4.0, max_sequence_length=TEXT_TOKENS,
        text_encoder_out_layers=(1, 3), output_type="latent",
    ).images  # fmt: skip
    conditions = ours.conditions(
        ours.caption_ids(["A man waves."]), ours.identity(fields_of(picture)), (64, 32)
    )
    latents = sample_latents(
        ours.module.denoiser, conditions, noise, SamplingSettings(steps=3, guidance=4.0, identity_scale=1.0)
    )
    unpacked = nn.functional.pixel_shuffle(ours.module.denoiser.unscaled(latents), 2)
    torch.testing.assert_close(unpacked, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [None, "comfyui"])
@pytest.mark.parametrize("lora", [{"rank": 4}, {"rank": 4, "alpha": 8.0}, {"rank": 4, "dora": True}])
def test_diffusers_computes_the_same_velocity_from_an_exported_file(
    layout: str | None, lora: dict[str, Any], folder: Path, theirs: Flux2KleinPipeline, tmp_path: Path
) -> None:
    recipe = on_folder(folder, denoising={"lora": lora}, body_px=[48, 32])
    module = built(recipe)
    file = tmp_path / "weight.safetensors"
    if layout and "dora" in lora:
        with pytest.raises(LayoutError, match="only LoRA has names that ComfyUI reads"):
            recipe.export(recipe.adapter(module), file, layout)
        return
    recipe.export(recipe.adapter(module), file, layout)
    denoiser = module.denoiser
    noised, text = torch.randn(2, 16, 4, 2), torch.randn(2, TEXT_TOKENS, 32)
    references = torch.randn(2, 6, 16)
    found = denoiser.predict(noised, torch.tensor([300.0, 900.0]), (text,), references)
    theirs.load_lora_weights(file)
    try:
        expected = by_hand(theirs, noised, text, references, torch.tensor([0.3, 0.9]))
    finally:
        theirs.unload_lora_weights()
    without = by_hand(theirs, noised, text, references, torch.tensor([0.3, 0.9]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - without).abs().max() > 1e-2


def by_hand(
    theirs: Flux2KleinPipeline, noised: Tensor, text: Tensor, references: Tensor, sigma: Tensor
) -> Tensor:
    """The velocity of diffusers' transformer, with the places that its pipeline gives."""
    reference = references[:1].transpose(1, 2).unflatten(2, (3, 2))
    ids = [theirs._prepare_latent_ids(noised)[:1], theirs._prepare_image_ids([reference])]
    with torch.no_grad():
        made = theirs.transformer(
            hidden_states=torch.cat([theirs._pack_latents(noised), references], dim=1),
            encoder_hidden_states=text, timestep=sigma, img_ids=torch.cat(ids, dim=1),
            txt_ids=theirs._prepare_text_ids(text), return_dict=False,
        )[0]  # fmt: skip
    return made[:, :8].transpose(1, 2).unflatten(2, (4, 2))


def test_references_apart_are_what_diffusers_makes_of_them_and_are_computed_once(
    folder: Path, theirs: Flux2KleinPipeline
) -> None:
    recipe = on_folder(folder, denoising={"references_apart": True, "lora": None}, body_px=[48, 32])
    denoiser = recipe.build(torch.float32).denoiser
    noised, text, references = (
        torch.randn(2, 16, 4, 2),
        torch.randn(2, TEXT_TOKENS, 32),
        torch.randn(2, 6, 16),
    )
    transformer = copy.deepcopy(theirs.transformer)
    for block in transformer.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    with torch.no_grad():
        expected = [
            transformer(
                hidden_states=torch.cat([references, theirs._pack_latents(noised)], dim=1),
                encoder_hidden_states=text, timestep=torch.full((2,), time / 1000),
                img_ids=torch.cat([denoiser.places, theirs._prepare_latent_ids(noised)[0]]),
                txt_ids=theirs._prepare_text_ids(text), kv_cache_mode="extract", num_ref_tokens=6,
            ).sample.transpose(1, 2).unflatten(2, (4, 2))
            for time in (900.0, 300.0)
        ]  # fmt: skip
        for cache in (False, True):
            with denoiser.generating((text,), references, identity_scale=1.0, cache=cache):
                for time, velocity in zip((900.0, 300.0), expected, strict=True):
                    found = denoiser.predict(noised, torch.full((2,), time), (text,), references)
                    torch.testing.assert_close(found, velocity, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=[False, True])
def both(request: pytest.FixtureRequest) -> tuple[Recipe, nn.Module]:
    recipe = tiny("flux2_reference", denoising={"references_apart": request.param})
    return recipe, built(recipe).eval()


def test_a_missing_reference_is_as_if_it_were_not_in_the_sequence(both: tuple[Recipe, nn.Module]) -> None:
    recipe, module = both
    batch = samples(recipe, ["ann-a", "bob-a"])
    fields = {**batch.fields, "visible": torch.tensor([[True] * 5, [True, False, True, False, True]])}
    fields["body_size"] = torch.tensor([[48, 32], [48, 17]])
    tokens = recipe.identity(module, fields)
    denoiser = module.denoiser
    assert isinstance(denoiser, Flux2Denoiser)
    noised, times = torch.randn(2, 16, 4, 4), torch.tensor([200.0, 800.0])
    text = denoiser.text(fields)
    with torch.no_grad():
        together = denoiser.predict(noised, times, text, tokens)
        there = (tokens[1] != 0).any(-1)
        # Of 6 tokens of the body all are touched at 17 px; two of four parts are there.
        assert there.tolist() == [True] * 6 + [False, True, False, True]
        places = denoiser.places
        denoiser.places = places[there]
        alone = denoiser.predict(noised[1:], times[1:], (text[0][1:],), tokens[1:, there])
        denoiser.places = places
        others = {**fields, "crops": fields["crops"].clone()}
        others["crops"][1, [1, 3]] = 255  # the parts that are not there
        again = denoiser.predict(noised, times, text, recipe.identity(module, others))
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(together, again)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_what_is_kept_over_a_generation_changes_nothing(scale: float, both: tuple[Recipe, nn.Module]) -> None:
    recipe, module = both
    pipeline = PersonaPipeline(recipe, module)
    batch = samples(recipe, ["ann-a", "bob-a"])
    conditions = pipeline.conditions(batch.fields["caption_ids"], pipeline.identity(batch.fields), (64, 64))
    sampling, noise = SamplingSettings(steps=3, guidance=3.0, identity_scale=scale), torch.randn(2, 16, 4, 4)
    once, anew = (
        sample_latents(module.denoiser, conditions, noise, sampling, cache=cache) for cache in (True, False)
    )
    assert once.isfinite().all()
    torch.testing.assert_close(once, anew, rtol=1e-5, atol=1e-5)


def test_a_dropped_reference_and_nobody_are_the_same(both: tuple[Recipe, nn.Module]) -> None:
    recipe, module = both
    batch = samples(recipe, ["ann-a", "bob-a"])
    nobody = recipe.nobody(module)
    assert nobody.shape == (1, 10, 16)
    no = torch.zeros(2, dtype=torch.bool)
    assert torch.equal(
        module.tokens(batch.fields, no, no[:, None].expand(-1, 4), no), nobody.expand(2, -1, -1)
    )


def test_full_size_has_the_published_counts_and_shapes() -> None:
    counts = {}
    for rank in (16, 32, 64, 128):
        recipe = tiny("flux2_reference", flux2={}, denoising={"lora": {"rank": rank}}, body_px=[512, 512],
                      part_px=256)  # fmt: skip
        with torch.device("meta"):
            module = recipe.build(torch.bfloat16)
        counts[rank] = round(sum(p.numel() for p in recipe.adapter(module).values()) / 1e6, 1)
    assert counts == {16: 18.7, 32: 37.4, 64: 74.7, 128: 149.4}
    denoiser = module.denoiser
    frozen = sum(p.numel() for p in denoiser.transformer.parameters() if not p.requires_grad)
    assert round(frozen / 1e9, 3) == 3.876
    assert round(sum(p.numel() for p in denoiser.vae.parameters()) / 1e6, 1) == 84.0
    assert recipe.base.latent_shape(1024, 1024) == (128, 64, 64)
    assert denoiser.no_text.shape == (1, 512, 7680)
    assert denoiser.places.shape == (1024 + 4 * 256, 4)
    fields = {field.name: field.shape for field in recipe.fields(1024, 1024)}
    assert fields["caption_ids"] == (2, 512)
    shapes = {key: tuple(p.shape) for key, p in recipe.released(recipe.adapter(module)).items()}
    assert shapes["transformer.single_transformer_blocks.19.attn.to_qkv_mlp_proj.lora_B.weight"] == (
        27648,
        128,
    )
    assert shapes["transformer.transformer_blocks.4.attn.add_k_proj.lora_A.weight"] == (128, 3072)
    assert len(shapes) == 2 * (5 * 8 + 20 * 2)


def test_the_shift_of_sampling_is_that_of_diffusers() -> None:
    for tokens in (64, 1024, 4096, 4300, 4301, 16384):
        for steps in (4, 10, 50, 200):
            assert np.log(sampling_shift(tokens, steps)) == pytest.approx(compute_empirical_mu(tokens, steps))
    assert sampling_shift(4096, 50) == pytest.approx(7.6, abs=0.1)


def test_a_vae_is_packed_where_its_folder_says_flux2(folder: Path) -> None:
    packed = vae_of_folder(folder / "vae")
    assert isinstance(packed, PackedVae)
    vae = packed.build()
    mean, _ = packed.normalisation()
    assert torch.equal(mean, vae.bn.running_mean)
    pixels = torch.randint(0, 256, (1, 32, 48, 3), dtype=torch.uint8)
    latents, std = packed.moments(vae, pixels)
    assert latents.shape == std.shape == (1, 16, 2, 3)
    assert packed.pictures(vae, latents).shape == (1, 32, 48, 3)
    other = vae_of_folder(Path("demo/weights/vae"))
    assert (type(other).__name__, other.factor, other.channels) == ("DiffusersVae", 8, 8)
    demo = PackedVae.of_folder(Path("demo/weights/vae"))
    assert (demo.factor, demo.channels) == (16, 32)
    assert demo.normalisation()[1].unique().item() == pytest.approx(1 / 0.6131)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"flux2": {**FLUX2, "rope_widths": [8, 8]}}, "rope_widths must be four numbers"),
        ({"body_px": [40, 32]}, "body_px must be of multiples of 16"),
        ({"prompt": "A person."}, r"prompt: .*must hold \{caption\}"),
        ({"denoising": {"tune_transformer": True}}, "lora must be none then"),
        ({"denoising": {"lora": {"targets": ["to_z"]}}}, "lora.targets: to_z names no layer"),
        ({"flux2": {"folder": "nowhere"}}, "nowhere"),
        ({"flux2": {**FLUX2, "vae_folder": "nowhere"}}, "nowhere: no config.json"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        tiny("flux2_reference", **changed).build(torch.float32)
    assert "\n" not in str(caught.value)


def test_another_base_that_takes_no_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="the base sdxl takes no pictures as references: name flux2"):
        recipe_of("flux2_reference", {})


def test_a_distilled_transformer_is_refused(folder: Path, tmp_path: Path) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "transformer").unlink()
    (tmp_path / "transformer").mkdir()
    config = json.loads((folder / "transformer/config.json").read_text()) | {"guidance_embeds": True}
    Flux2Transformer2DModel.from_config(config).save_pretrained(tmp_path / "transformer")
    with pytest.raises(ValueError, match="its guidance is distilled into it"):
        on_folder(tmp_path).build(torch.float32)
