"""Memory of a step is predicted from shapes, and is what the allocator counts."""

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from tests.drawn_training import SDXL, built, tiny
from training.batch import random_batch
from training.memory import MemoryPlan, peak_memory, predict_memory
from training.models.quantised import stored
from training.ranks import Ranks
from training.run_settings import LoopSettings
from training.step import Step, StepRecord

PX = 128


def predicted(
    recipe: Any,
    module: torch.nn.Module,
    settings: LoopSettings,
    ranks: Ranks | None = None,
    samples: int = 4,
) -> MemoryPlan:
    fields = recipe.fields(PX, PX)
    return predict_memory(module, recipe.blocks(module), fields, samples, settings, ranks or Ranks())


@pytest.mark.parametrize(
    ("name", "samples", "denoising", "loop"),
    [
        ("visual_persona", 4, {}, {"precision": "fp32"}),
        ("visual_persona", 1, {"cached_latents": True}, {"precision": "bf16"}),
        ("visual_persona", 4, {"tune_unet": True}, {"precision": "bf16", "accumulate": 2}),
        ("visual_persona", 2, {"tune_unet": True, "checkpoint_activations": True}, {"precision": "fp32"}),
        ("ip_adapter", 2, {"tune_unet": True}, {"precision": "fp32", "optimiser": {"name": "adamw_8bit"}}),
        (
            "visual_persona",
            2,
            {"quantise": "int8", "offload_encoders": True, "lora": {"dora": True}},
            {"precision": "bf16"},
        ),
        ("ip_adapter", 2, {"quantise": "nf4", "lora": {}}, {"precision": "fp32"}),
        (
            "ip_adapter",
            2,
            {"offload_encoders": True},
            {"precision": "fp32", "optimiser": {"name": "adafactor"}},
        ),
        # Its averages are made when they are asked for: none lie there.
        ("ip_adapter", 2, {"tune_unet": True}, {"precision": "fp32", "optimiser": {"name": "schedule_free"}}),
    ],
)
def test_predicted_memory_is_what_the_allocator_counts(
    name: str, samples: int, denoising: dict[str, Any], loop: dict[str, Any]
) -> None:
    recipe = tiny(name, denoising=denoising)
    settings = LoopSettings.model_validate({"steps": 9, **loop})
    module = built(recipe, dtype=settings.frozen_dtype)
    plan = predicted(recipe, module, settings, samples=samples)

    step, record = Step(module, (), settings, Ranks()), StepRecord(Ranks())
    batches = [random_batch(recipe.fields(PX, PX), samples, seed=seed) for seed in range(settings.accumulate)]
    step(0, batches, record)
    state = tree_leaves(list(step.optimiser.state.values()))
    fields = [tensor for batch in batches for tensor in batch.fields.values()]
    averages = [] if step.ema.are_made else step.ema.tensors.values()
    whole = [*module.parameters(), *module.buffers(), *averages, *state, *fields]
    resident = [part for tensor in whole for part in stored(tensor)]
    with peak_memory(torch.device("cpu"), resident, scratch=False) as measured:
        step(1, batches, record)
    assert plan.peak == pytest.approx(measured.bytes, rel=0.01)


@pytest.mark.parametrize("by_onednn", [True, False])
def test_what_a_kernel_takes_and_gives_back_is_left_out_on_every_processor(by_onednn: bool) -> None:
    """Without oneDNN, as without instructions for bf16, a convolution spreads its picture out."""
    picture = torch.randn(1, 16, 64, 64).bfloat16()
    weights = torch.randn(16, 16, 3, 3).bfloat16()

    def peak(scratch: bool) -> int:
        measuring = peak_memory(torch.device("cpu"), [picture, weights], scratch=scratch)
        with torch.backends.mkldnn.flags(enabled=by_onednn), measuring as measured:
            made = torch.nn.functional.conv2d(picture, weights)
            kept = made + 1
            del made, kept
        return measured.bytes

    outputs = 2 * 2 * 16 * 62 * 62
    # The allocator gives whole lines of 64 bytes.
    assert peak(scratch=False) == pytest.approx(outputs + 2 * (picture.numel() + weights.numel()), abs=256)
    if not by_onednn:
        assert peak(scratch=True) > peak(scratch=False) + 9 * 2 * 16 * 62 * 62 / 2


def test_a_prediction_changes_nothing_and_grows_with_what_is_kept() -> None:
    recipe = tiny("visual_persona", denoising={"tune_unet": True})
    module = built(recipe)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    settings = LoopSettings(steps=9, precision="fp32")
    alone = predicted(recipe, module, settings)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    trained = sum(p.numel() * 4 for p in module.parameters() if p.requires_grad)
    assert alone.averages == trained
    assert alone.optimiser == pytest.approx(2 * trained, rel=0.01)

    whole = predicted(recipe, module, settings, Ranks(0, 4))
    assert whole.gradients == trained
    sharded = predicted(recipe, module, settings.model_copy(update={"shard": True}), Ranks(0, 4))
    assert sharded.optimiser == pytest.approx(whole.optimiser / 4, rel=0.01)
    assert sharded.averages == pytest.approx(whole.averages / 4, rel=0.01)
    # Whole while a step computes: two blocks, and what lies in none, with the gradients of both.
    blocks = [
        sum(p.numel() * 4 for p in block.parameters() if p.requires_grad) for block in recipe.blocks(module)
    ]
    outside = trained - sum(blocks)
    assert outside > max(blocks)
    assert sharded.activations - whole.activations == 2 * (2 * max(blocks) + outside)


def test_of_a_sharded_module_is_counted_what_a_step_validation_or_pictures_gather() -> None:
    # A UNet whose weights outweigh its activations by far.
    wide = {**SDXL, "channels": [96, 192]}
    recipe = tiny("visual_persona", sdxl=wide, denoising={"tune_unet": True, "cached_latents": True})
    module = built(recipe)
    settings, ranks = LoopSettings(steps=9, precision="bf16", shard=True), Ranks(0, 4)
    trained = sum(p.numel() * 4 for p in module.parameters() if p.requires_grad)
    one, two = (
        predicted(recipe, module, settings.model_copy(update={"accumulate": batches}), ranks)
        for batches in (1, 2)
    )
    blocks = [
        sum(p.numel() * 4 for p in block.parameters() if p.requires_grad) for block in recipe.blocks(module)
    ]
    part = 2 * max(blocks) + trained - sum(blocks)
    assert one.gradients == two.gradients == trained // 4
    assert one.gradients + one.activations >= trained // 2  # as validation and pictures have them
    # Two bytes each: all weights between the two batches of a step, and the gradients of a part of them.
    assert two.activations - trained // 2 > part // 2
