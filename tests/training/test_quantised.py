"""A frozen base in few bits: gradients reach what is trained, and its weights are never written."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.drawn_training import FLUX2, SDXL, built, samples, tiny
from training.export import export_merged
from training.models.local_weights import on_host
from training.models.quantised import is_quantised, stored
from training.recipes.recipe import Recipe
from training.released_layout import read_released
from training.start import compile_blocks

# Wider than the usual tiny size, so that nf4 has whole blocks and a row has more than a few numbers.
WIDE = {**SDXL, "channels": [32, 64], "head_width": 32}


def wide(**denoising: Any) -> Recipe:
    return tiny("visual_persona", sdxl=WIDE, denoising=denoising)


def losses_and_gradients(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    module, batch = built(recipe), samples(recipe, ["ann-a", "bob-a"])
    losses = module(batch.fields, batch.streams, drop=False)
    losses.sum().backward()
    return losses.detach(), torch.cat([p.grad.flatten() for p in recipe.adapter(module).values()
                                       if p.grad is not None])  # fmt: skip


# Of a random base that is far narrower than a real one; the error of a gradient falls as layers widen.
@pytest.mark.parametrize(
    ("kind", "loss", "gradient"), [("int8", 1e-3, 0.05), ("fp8", 5e-3, 0.2), ("nf4", 1e-2, 0.5)]
)
def test_gradients_through_a_quantised_base_are_near_those_through_the_whole_one(
    kind: str, loss: float, gradient: float
) -> None:
    exact, exact_gradient = losses_and_gradients(wide())
    found, found_gradient = losses_and_gradients(wide(quantise=kind))
    assert (found - exact).abs().max() <= loss * exact.abs().max()
    assert 0 < (found_gradient - exact_gradient).norm() <= gradient * exact_gradient.norm()


# Of a random transformer whose layers are 64 wide.
@pytest.mark.parametrize(
    ("kind", "loss", "gradient"), [("int8", 2e-3, 0.05), ("fp8", 1e-2, 0.2), ("nf4", 2e-2, 0.5)]
)
def test_flux2_is_quantised_too_and_its_references_and_lora_work_on_it(
    kind: str, loss: float, gradient: float
) -> None:
    flux2 = {**FLUX2, "heads": 4}
    recipes = [
        tiny("flux2_reference", flux2=flux2, denoising=changed) for changed in ({}, {"quantise": kind})
    ]
    (exact, exact_gradient), (found, found_gradient) = map(losses_and_gradients, recipes)
    assert (found - exact).abs().max() <= loss * exact.abs().max()
    assert 0 < (found_gradient - exact_gradient).norm() <= gradient * exact_gradient.norm()
    module = built(recipes[1])
    layers = [layer for layer in module.denoiser.transformer.modules() if isinstance(layer, nn.Linear)]
    frozen = [layer.weight for layer in layers if not layer.weight.requires_grad]
    assert len(frozen) > 20
    assert all(map(is_quantised, frozen))
    assert all(not is_quantised(p) for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "denoising"),
    [
        ("visual_persona", {"lora": {"rank": 2}, "quantise": "nf4"}),
        ("visual_persona", {"lora": {"rank": 2, "dora": True}, "quantise": "int8"}),
        ("flux2_reference", {"lora": {"rank": 4}}),
        ("flux2_reference", {"lora": {"rank": 4}, "quantise": "int8"}),
        ("flux2_reference", {"lora": {"rank": 4}, "quantise": "nf4", "references_apart": True}),
    ],
)
def test_compiled_blocks_with_lora_on_whole_and_on_quantised_weights_compute_what_eager_ones_do(
    name: str, denoising: dict[str, Any]
) -> None:
    """The first block of each kind is compiled."""
    changed = {"sdxl": WIDE} if name == "visual_persona" else {"flux2": {**FLUX2, "heads": 4}}
    recipe = tiny(name, denoising=denoising, **changed)
    module, batch = built(recipe), samples(recipe, ["ann-a", "bob-a"])

    def computed() -> list[torch.Tensor]:
        module.zero_grad()
        losses = module(batch.fields, batch.streams, drop=False)
        losses.sum().backward()
        return [losses.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]

    eager = computed()
    compile_blocks({type(block): block for block in reversed(recipe.blocks(module))}.values(), "aot_eager")
    found = computed()
    assert len(found) == len(eager) > 5
    for one, two in zip(eager, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.3), ("fp8", 0.3), ("nf4", 0.15)])
def test_quantised_weights_take_their_share_of_float32(kind: str, share: float) -> None:
    module = built(wide(quantise=kind))
    kept = [p for p in module.denoiser.unet.parameters() if is_quantised(p)]
    size = sum(part.numel() * part.element_size() for p in kept for part in stored(p))
    assert len(kept) > 20
    assert size <= share * 4 * sum(p.numel() for p in kept)
    assert all(not is_quantised(p) for p in module.parameters() if p.requires_grad)


def test_encoders_on_the_host_change_no_loss_and_are_among_no_parameters() -> None:
    for name in ("visual_persona", "ip_adapter"):
        usual, offloaded = (tiny(name, denoising={"offload_encoders": it}) for it in (False, True))
        modules = [built(recipe) for recipe in (usual, offloaded)]
        batch = samples(usual, ["ann-a", "bob-a"])
        with torch.no_grad():
            losses = [module(batch.fields, batch.streams) for module in modules]
        assert torch.equal(*losses)
        away = [parameter for part in on_host(modules[1]) for parameter in part.parameters()]
        left = [name for name, _ in modules[1].named_parameters()]
        assert len(away) + len(left) == len(list(modules[0].parameters()))
        assert not any(name.startswith(("encoder.dino", "denoiser.texts", "denoiser.vae")) for name in left)


def test_merging_into_quantised_weights_is_refused_and_an_export_has_the_whole_ones(tmp_path) -> None:
    recipe = wide(quantise="int8", lora={"rank": 2})
    module = recipe.build(torch.float32)  # B begins as zeros
    with pytest.raises(ValueError, match="not into quantised ones"):
        recipe.export_merged(module, tmp_path / "weight.safetensors")
    assert not (tmp_path / "weight.safetensors").exists()
    adapter = {name: p.detach() for name, p in recipe.adapter(module).items()}
    export_merged(recipe, adapter, tmp_path / "weight.safetensors")
    written = read_released(tmp_path / "weight.safetensors")
    whole = dict(built(wide()).denoiser.unet.named_parameters())
    names = [name for name in written if name.startswith("unet.")]
    assert len(names) == len([name for name in whole if ".processor." not in name])
    assert all(torch.equal(written[name], whole[name.removeprefix("unet.")]) for name in names)


def test_a_transformer_that_is_tuned_is_not_quantised() -> None:
    with pytest.raises(
        ValueError, match="tune_transformer trains all of it, and quantise is for a frozen one"
    ):
        tiny("flux2_reference", denoising={"tune_transformer": True, "lora": None, "quantise": "int8"})


@pytest.mark.parametrize("besides", [{"lora": {}}, {"quantise": "int8"}])
def test_a_unet_that_is_tuned_is_neither_quantised_nor_given_lora(besides: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tune_unet trains all of the UNet"):
        tiny("visual_persona", denoising={"tune_unet": True, **besides})
