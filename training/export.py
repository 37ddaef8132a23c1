"""From a run's checkpoint to a published file, and the proof that a strict reader gets the same model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.batch import random_batch
from training.checkpoint import Checkpoint, CheckpointError, best_of, load_checkpoint, place_of
from training.models.lora import is_lora
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.released_layout import LayoutError

VERIFY_PX = 64  # side of the noise that both are compared on, or the next that the base can take


def last_checkpoint(run: Path | str, *, best: bool = False) -> Checkpoint:
    """The newest one of a run's folder, or the one that the path itself is. Raises CheckpointError.

    run    a URL is that of `loop.checkpoints`
    best   the one with the lowest validation loss, of those that are there
    """
    where: Path | str = run
    if not (isinstance(run, str) and "://" in run):
        if (Path(run) / "checkpoint.json").is_file():
            return load_checkpoint(Path(run))
        where = Path(run) / "checkpoints"
    try:
        place = place_of(where)
        names = place.names()
        if not names:
            raise CheckpointError(f"{run}: no checkpoint and no run with one")
        name = best_of(place, names) if best else names[-1]
        if name is None:
            raise CheckpointError(f"{run}: no checkpoint was validated, so none is the best")
        with place.opened(name) as folder:
            return load_checkpoint(folder, f"{where}/{name}")
    except OSError as error:
        raise CheckpointError(str(error)) from None


def recipe_of_checkpoint(checkpoint: Checkpoint) -> Recipe:
    """The recipe that made it, with its settings. Raises ValueError."""
    return recipe_of(checkpoint.record["recipe"], checkpoint.record["recipe_settings"])


def adapter_of(checkpoint: Checkpoint, *, averaged: bool) -> dict[str, Tensor]:
    """The adapter by module path; `averaged` takes the moving averages of what was trained."""
    averages = checkpoint.tensors["ema"] if averaged else {}
    return {name: averages.get(name, tensor) for name, tensor in checkpoint.tensors["adapter"].items()}


def export_merged(recipe: Recipe, adapter: Mapping[str, Tensor], path: Path) -> None:
    """Writes an adapter with its LoRA within the weights of the base, which are those of the base's folder,
    whatever they were kept as in training. Raises ValueError, one line, where there is no LoRA."""
    if not any(is_lora(name) for name in adapter):
        raise ValueError("--merge-lora: the run has trained no LoRA (method.denoising.lora)")
    recipe = _whole(recipe)
    module = recipe.build(torch.float32)
    recipe.load_adapter(module, adapter)
    recipe.export_merged(module, path)


def _whole(recipe: Recipe, **changed: Any) -> Recipe:
    return recipe.with_denoising(quantise=None, offload_encoders=False, **changed)


@torch.no_grad()
def verify_export(recipe: Recipe, adapter: Mapping[str, Tensor], path: Path, *, merged: bool = False) -> None:
    """Raises LayoutError unless the file gives every number of the adapter back, and so the same epsilon.

    The file is read as its publishers read theirs, by place, into a model that held other numbers.

    merged   whether LoRA lies within the file's weights of the base: then the epsilon is the same to rounding
    """
    recipe = _whole(recipe)
    torch.manual_seed(0)
    module = recipe.build(torch.float32)
    side = -(-VERIFY_PX // recipe.base.size_step_px) * recipe.base.size_step_px
    batch = random_batch(recipe.fields(side, side), 2)
    recipe.load_adapter(module, adapter)
    expected = module(batch.fields, batch.streams, drop=False)
    if merged:
        recipe = _whole(recipe, lora=None)
        module = recipe.build(torch.float32)
    for parameter in recipe.adapter(module).values():
        parameter.add_(1)
    recipe.load_export(module, path)
    for name, parameter in recipe.adapter(module).items():
        known = adapter.get(name)
        # Of B the file holds s·B, and s is a power of 2 but where somebody asks for another.
        if known is not None and not torch.allclose(
            parameter, known.float(), rtol=1e-6 * is_lora(name), atol=0
        ):
            raise LayoutError(f"{path}: {name} does not come back as it was written")
    found = module(batch.fields, batch.streams, drop=False)
    rounded = 1e-4 if any(is_lora(name) for name in adapter) else 0.0
    if not torch.allclose(found, expected, rtol=rounded, atol=0):
        raise LayoutError(f"{path}: the model that reads it predicts something else")
