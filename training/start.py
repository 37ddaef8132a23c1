"""A run from its settings: recipe, data and loop, checked before anything is built."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import Field, ValidationError
from safetensors.torch import load_file

from shards.folder import DatasetFolder
from shards.loader import Loader
from shards.pairs import Pairs
from shards.plan import Position
from shards.torch_dataset import PinnedMemory
from training.batch import Batch
from training.compilation import compile_blocks
from training.loop import LoopSettings, Training
from training.pair_fields import PairFields, members_for
from training.ranks import Ranks
from training.recipes import recipe_of
from training.recipes.recipe import Recipe
from training.settings import Settings
from training.shard_batches import ShardBatches, check_dataset, no_reconstruction


class DataSettings(Settings):
    """What is read, and how."""

    height_px: int = Field(1024, ge=64, multiple_of=64)
    width_px: int = Field(1024, ge=64, multiple_of=64)
    batch: int = Field(8, ge=1, description="samples of one rank in one batch")
    regions: list[str] = Field(default_factory=list, description="that both photos of a pair must show")
    threads: int = Field(2, ge=1, description="that read and decode, of each rank")
    ahead: int = Field(2, ge=1, description="batches in work besides the one in use")
    seed: int = Field(0, ge=0)
    max_broken: int = Field(100, ge=0, description="samples of an epoch that may be unreadable")
    validation_batches: int = Field(4, ge=1, description="of each rank")


class RunSettings(Settings):
    """One training."""

    recipe: str
    method: dict[str, Any] = Field(default_factory=dict, description="settings of the recipe")
    data: DataSettings = DataSettings()
    loop: LoopSettings
    compile: bool = True
    start_from: str | None = Field(
        None, description="an adapter.safetensors, or a published file, to begin with"
    )


def named_configs() -> list[str]:
    """Names of the configs that come with the project."""
    return sorted(
        file.name.removesuffix(".yaml")
        for file in files("training.configs").iterdir()
        if file.name.endswith(".yaml")
    )


def read_settings(config: str, changes: dict[str, Any]) -> RunSettings:
    """A config by its name or path, with values set at dotted paths. Raises ValueError, one line."""
    file = Path(config) if config.endswith((".yaml", ".yml")) else None
    if file is None and config not in named_configs():
        raise ValueError(
            f"unknown config {config!r}: there are {', '.join(named_configs())}, or a path to a .yaml"
        )
    try:
        text = file.read_text() if file else (files("training.configs") / f"{config}.yaml").read_text()
        given = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{config}: {str(error).splitlines()[0]}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{config}: must be a mapping with the keys {', '.join(RunSettings.model_fields)}")
    for path, value in changes.items():
        at = given
        *parents, last = path.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"{config}: {parent} of {path} holds a value, no keys")
        at[last] = value
    try:
        return RunSettings.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{config}: {where}: {fault['msg']}") from None


def prepare(
    settings: RunSettings, shards: str, out: Path, ranks: Ranks, validation: str | None = None
) -> Training:
    """Checks all that can be wrong, then builds. Raises ValueError, one line."""
    recipe = recipe_of(settings.recipe, settings.method)
    data, loop = settings.data, settings.loop
    folders = [DatasetFolder(folder) for folder in (shards, validation) if folder is not None]
    fields = recipe.fields(data.height_px, data.width_px)
    for folder in folders:
        check_dataset(folder, fields, batch=data.batch, world=ranks.world)
    tokenise = recipe.tokeniser()

    def loader(folder: DatasetFolder, *, reconstruct: bool) -> Loader:
        memory = PinnedMemory(pinned=ranks.device.type == "cuda")
        decoder = PairFields(fields, tokenise, reconstruct=reconstruct, memory=memory)
        pairs = Pairs(folder, regions=data.regions, kinds=members_for(fields))
        return Loader(
            pairs, decoder, data.batch, Position(data.seed), ranks.rank, ranks.world,
            threads=data.threads, ahead=data.ahead, max_broken=data.max_broken,
        )  # fmt: skip

    run_samples = loop.steps * loop.accumulate * data.batch * ranks.world
    batches = ShardBatches(
        loader(folders[0], reconstruct=recipe.reconstruction_share(0) > 0),
        run_samples=run_samples,
        reconstruction=recipe.reconstruction_share,
    )
    held_out: list[Batch] = []
    if len(folders) > 1:
        fixed = ShardBatches(
            loader(folders[1], reconstruct=False), run_samples=1, reconstruction=no_reconstruction
        )
        held_out = [next(fixed) for _ in range(data.validation_batches)]
    torch.manual_seed(data.seed)
    module = recipe.build(loop.frozen_dtype).to(ranks.device)
    if settings.start_from is not None:
        _begin_with(recipe, module, Path(settings.start_from))
    if settings.compile:
        compile_blocks(recipe.blocks(module))
    return Training(recipe, module, batches, loop, out, ranks, held_out)


def _begin_with(recipe: Recipe, module: torch.nn.Module, file: Path) -> None:
    """Checkpoints have module paths, published files do not: the first key tells."""
    if not file.is_file():
        raise ValueError(f"start_from: {file}: no such file")
    tensors = load_file(file) if file.suffix == ".safetensors" else {}
    if any(name.startswith("identity.") for name in tensors):
        recipe.load_adapter(module, tensors)
    else:
        recipe.load_export(module, file)
