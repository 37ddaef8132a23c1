"""What a step no longer does, as ratios to the commit 151ca1d, and what benchmarks of the trainer measure on.

dino_flops_ratio     FLOPs of DINOv2 in training to those of all regions, which that commit computed
stage_a_cpu_ratio    CPU of the first stage's loader to that of that commit, in turns on the same drawn
                     photos; None where git has no such commit
compiled_variants    graphs of each kind of block over the eleven sizes of the second stage
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reading_samples import samples
from shards.format.dataset_writer import DatasetWriter
from shards.reading.buckets import sizes_around
from training.batch import Batch, random_batch
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.start import compile_blocks

ROOT = Path(__file__).resolve().parent.parent

_TEXT = {"width": 64, "depth": 2, "heads": 2, "mlp_width": 128, "projection": 64, "vocabulary": 4096}
SMALL: dict[str, Any] = {
    "sdxl": {
        "channels": [64, 96],
        "transformer_depths": [1, 1],
        "head_width": 32,
        "layers_per_block": 1,
        "norm_groups": 16,
        "time_id_width": 32,
        "text": _TEXT,
        "text_2": {**_TEXT, "activation": "gelu"},
        "vae_channels": [16, 16, 32, 32],
        "vae_layers": 1,
    },
    "dino": {"width": 96, "depth": 4, "heads": 3, "trained_px": 112, "crop_px": 112},
    "decoder": {"queries": 16, "width": 128, "feature_width": 96, "depth": 2, "heads": 4, "mlp_width": 256},
}

# Shares of photos that show each region: 3.57 regions of a photo, as the corpus has them.
SHOWN = (0.97, 0.8, 0.8, 0.6, 0.4)


def drawn_batch(recipe: Recipe, px: int | tuple[int, int], count: int, *, seed: int) -> Batch:
    """Noise on the CPU, with as many visible regions as the corpus has, and what the host counts of it."""
    height, width = (px, px) if isinstance(px, int) else px
    made = random_batch(recipe.fields(height, width), count, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(made.fields["visible"].shape, generator=generator) < torch.tensor(SHOWN)
    made = replace(made, fields={**made.fields, "visible": visible})
    return replace(made, counts=recipe.counts(made.fields, made.streams, drop=True))


def built_on(recipe: Recipe, device: torch.device) -> nn.Module:
    """The recipe's module in float32 with random weights that are drawn on the device; none is on the CPU."""

    def without_numbers(_: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_numbers)
    try:
        module = recipe.build(torch.float32)
    finally:
        hook.remove()
    generator = torch.Generator(device).manual_seed(0)
    for part in module.modules():
        for name, shape in list(part.named_parameters(recurse=False)):
            numbers = torch.empty(shape.shape, device=device)
            if shape.ndim == 1:
                numbers.fill_(0.0 if name == "bias" else 1.0)
            else:
                numbers.normal_(0, shape[0].numel() ** -0.5, generator=generator)
            setattr(part, name, nn.Parameter(numbers, shape.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_meta:  # the scale of identity, made where its weights were
                part.register_buffer(name, torch.ones(buffer.shape, device=device), persistent=False)
    return module.to(device)


def write_pairs(folder: str, groups: int) -> None:
    """Groups of two photos of 512 × 512 px."""
    photos = samples(2 * groups)
    with DatasetWriter(folder) as writer:
        for number in range(groups):
            members: dict[str, bytes] = {}
            for place in range(2):
                _, drawn = next(photos)
                members |= {f"{place:03d}{suffix[3:]}": data for suffix, data in drawn.items()}
            writer.add(f"{number:016x}-a", members)
        writer.close("noise", {"pipeline": "none"})


def dino_flops_ratio(batches: int = 400, people: int = 8) -> float:
    """FLOPs of DINOv2 in drawn batches of a training, to those of all regions: they grow with its rows, which
    is measured for two numbers of them."""
    recipe = recipe_of("visual_persona", {**SMALL, "denoising": {"cached_latents": True}})
    with torch.device("meta"):
        encoder = recipe.build(torch.float32).encoder
    side, spent = recipe.settings.dino.crop_px, {}
    for rows in (1, 2):
        crops = torch.empty(1, rows, side, side, 3, dtype=torch.uint8, device="meta")
        with FlopCounterMode(display=False) as counted:
            encoder(crops, torch.ones(1, rows, dtype=torch.bool, device="meta"))
        spent[rows] = counted.get_total_flops()
    assert spent[2] == 2 * spent[1]
    seen = sum(drawn_batch(recipe, 32, people, seed=seed).counts["seen"] for seed in range(batches))
    return seen * spent[1] / (batches * people * len(SHOWN) * spent[1])


def graphs_counted(recipe: Recipe, module: nn.Module, sizes: int) -> Counter[str]:
    """Compiles the module's blocks for so many sizes of targets, without code, and counts their graphs by the
    kind of block in what it returns, as batches make them."""
    made: Counter[str] = Counter()

    def compiler_of(kind: str) -> Callable[..., Any]:
        def counting(graph: Any, _: Any) -> Any:
            made[kind] += 1
            return graph.forward

        return counting

    for kind in {type(block) for block in recipe.blocks(module)}:
        own = [block for block in recipe.blocks(module) if type(block) is kind]
        compile_blocks(own, compiler_of(kind.__name__), sizes=sizes)
    return made


def compiled_variants() -> dict[str, int]:
    """Graphs of each kind of block over the eleven sizes of stage B, a quarter as high and wide, at the small
    model's widths: two widths of the UNet, as at full size. No code is generated for them."""
    recipe = recipe_of("visual_persona", {**SMALL, "denoising": {"cached_latents": True}})
    module = built_on(recipe, torch.device("cpu"))
    sizes = [(height // 64 * 16, width // 64 * 16) for height, width in sizes_around(1024, 1024)]
    made = graphs_counted(recipe, module, len(sizes))
    for seed, size in enumerate(sizes):
        batch = drawn_batch(recipe, size, 2, seed=seed)
        module(batch.fields, batch.streams, **batch.counts).mean().backward()
    torch._dynamo.reset()
    print(f"compiled graphs over {len(sizes)} sizes: {dict(made)}", flush=True)
    return dict(made)


# Run by either tree: what it imports and calls, both have.
_STAGE_A = """
import sys
from itertools import islice
from pathlib import Path
import torch
from benchmarks import data_wait as path
torch.set_num_threads(1)
settings = path.DataSettings.model_validate({"height_px": 640, "width_px": 512, "batch": 16, "threads": 1})
method = {**path.METHOD, "stage": "shared_queries", "reconstruction": 0.3}
data = path.open_data(settings, path.recipe_of("visual_persona", method), path.Ranks(), sys.argv[1])
stream = data.batches(16 * 100)
next(stream)
began, batches = path._cpu_s(), 12
for _ in islice(stream, batches):
    pass
print(1000 * (path._cpu_s() - began) / (16 * batches))
"""


def stage_a_cpu_ratio(before: str) -> float | None:
    """CPU a sample of the loader at the beginning of the first stage, this tree's to that of a commit, each
    the least of two in turns; None where git cannot give the commit."""
    with tempfile.TemporaryDirectory() as folder:
        other, shards = Path(folder, "before"), Path(folder, "shards")
        adding = ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(other), before]
        try:
            added = subprocess.run(adding, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            added = False
        if not added:
            print(f"stage_a_cpu_ratio: git has no {before} here", flush=True)
            return None
        try:
            write_pairs(str(shards), 120)
            spent: dict[Path, list[float]] = {ROOT: [], other: []}
            for tree in (ROOT, other) * 2:
                told = subprocess.run(
                    [sys.executable, "-c", _STAGE_A, str(shards)],
                    cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True,
                    check=True,
                )  # fmt: skip
                spent[tree].append(float(told.stdout.split()[-1]))
        finally:
            removing = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(other)]
            subprocess.run(removing, capture_output=True, check=False)
    now, then = min(spent[ROOT]), min(spent[other])
    print(f"stage A's loader: {now:.1f} ms of CPU a sample, {then:.1f} at {before}", flush=True)
    return round(now / then, 3)
