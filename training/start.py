"""A run from its settings: recipe, data and loop, checked before anything is built."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from training.data import DataSettings, RunData, open_data
from training.generation.validation_pictures import PictureSettings, ValidationPictures
from training.loop import Training
from training.memory import MemoryPlan, predict_memory
from training.metrics import check_wandb
from training.ranks import Ranks
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.settings import Settings, named_files, read_config
from training.step import LoopSettings

# Variants of one kind of block: its widths times the aspect buckets of the data.
_VARIANTS = 128


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Compiles each block in place; module paths stay as they are.

    Shapes are static: each bucket is compiled once, when its first batch comes. A block that cannot be
    compiled whole is an error, not a slow run.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    for block in blocks:
        block.compile(fullgraph=True, dynamic=False, backend=backend)


class RunSettings(Settings):
    """One training."""

    recipe: str
    method: dict[str, Any] = Field(default_factory=dict, description="settings of the recipe")
    data: DataSettings = DataSettings()
    loop: LoopSettings
    pictures: PictureSettings = PictureSettings()
    compile: bool = True
    start_from: str | None = Field(
        None, description="an adapter.safetensors, or a published file, to begin with"
    )


def named_configs() -> list[str]:
    """Names of the configs that come with the project."""
    return named_files("training.configs")


def read_settings(config: str, changes: dict[str, Any]) -> RunSettings:
    """A config by its name or path, with values set at dotted paths. Raises ValueError, one line."""
    return read_config(RunSettings, "training.configs", config, changes, "config")


@dataclass(frozen=True)
class Prepared:
    """A run that was checked and whose module is built, on the CPU; nothing of it is on a device yet."""

    settings: RunSettings
    data: RunData
    module: torch.nn.Module
    out: Path
    ranks: Ranks

    def memory(self) -> MemoryPlan:
        """What a step will take on this rank's device, with targets of the largest size."""
        recipe, data = self.data.recipe, self.settings.data
        fields = recipe.fields(*max(data.sizes, key=math.prod))
        blocks = recipe.blocks(self.module)
        return predict_memory(self.module, blocks, fields, data.batch, self.settings.loop, self.ranks)

    def training(self) -> Training:
        """The run on its device. Raises ValueError, one line."""
        settings, loop, ranks, recipe = self.settings, self.settings.loop, self.ranks, self.data.recipe
        batches = self.data.batches(loop.steps * loop.accumulate * settings.data.batch * ranks.world)
        held_out = self.data.validation()
        module = self.module.to(ranks.device)
        if settings.compile:
            compile_blocks(recipe.blocks(module))
        pictures = None
        if held_out and loop.pictures_every:
            place = self.out / "pictures" if ranks.first else None
            pictures = ValidationPictures(recipe, held_out[0], place, settings.pictures)
        return Training(recipe, module, batches, loop, self.out, ranks, held_out, pictures)


def prepare(
    settings: RunSettings, shards: str, out: Path, ranks: Ranks, validation: str | None = None
) -> Prepared:
    """Checks all that can be wrong, then builds. Raises ValueError, one line."""
    if settings.loop.wandb is not None:
        check_wandb()
    recipe = recipe_of(settings.recipe, settings.method)
    data = open_data(settings.data, recipe, ranks, shards, validation)
    torch.manual_seed(settings.data.seed)
    module = data.recipe.build(settings.loop.frozen_dtype)
    if settings.start_from is not None:
        _begin_with(data.recipe, module, Path(settings.start_from))
    return Prepared(settings, data, module, out, ranks)


def _begin_with(recipe: Recipe, module: torch.nn.Module, file: Path) -> None:
    """Checkpoints have module paths, published files do not: the first key tells."""
    if not file.is_file():
        raise ValueError(f"start_from: {file}: no such file")
    try:
        tensors = load_file(file) if file.suffix == ".safetensors" else {}
        if any(name.startswith("identity.") for name in tensors):
            recipe.load_adapter(module, tensors)
            return
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"start_from: {file}: {str(error).splitlines()[0]}") from None
    recipe.load_export(module, file)
