"""A run from its settings: recipe, data and loop, and the run that it goes on with, checked before anything
is built."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from training.batch import random_batch
from training.checkpoint import last_record
from training.data import RunData, open_data
from training.export import adapter_of, last_checkpoint
from training.first_checks import check_pictures, check_wandb, check_writable
from training.generation.validation_pictures import ValidationPictures
from training.loop import Training, Weights
from training.memory import MemoryPlan, predict_memory
from training.models.lora import is_lora, peft_tensors
from training.ranks import Ranks, is_sharded
from training.rates import TimePlan, on_meta, peak_flops, plan_time, step_flops
from training.recipes import recipe_of
from training.recipes.recipe import Recipe, lora_file
from training.run_settings import RunSettings, config_text

# Graphs of one kind of block: by its widths, with and without gradients, of one row and of many.
_VARIANTS = 32


def compile_blocks(
    blocks: Iterable[nn.Module], backend: str | Callable[..., Any] = "inductor", *, sizes: int = 1
) -> None:
    """Compiles each block in place; module paths stay as they are.

    sizes   of targets. For one, code is made for its shapes, and what differs from batch to batch, as how
            many regions are there, is compiled anew once, for any number. For several, code is for any
            number of tokens from the first batch on

    A block that cannot be compiled whole is an error, not a slow run.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    for block in blocks:
        block.compile(fullgraph=True, dynamic=True if sizes > 1 else None, backend=backend)


@dataclass(frozen=True)
class Prepared:
    """A run that was checked and whose module is built.

    settings   as they were given, but for epochs, which are steps
    changed    settings in which it differs from the run that it goes on with, as people read them
    config     all settings as text, as they were given
    done       steps of the run that it goes on with; 0: none
    """

    settings: RunSettings
    data: RunData
    module: torch.nn.Module
    out: Path
    ranks: Ranks
    changed: list[str]
    config: str
    done: int = 0

    def time(self, gpu: str | None, mfu: float) -> TimePlan:
        """How long the steps that are left take: as earlier ones did, else by FLOPs on a GPU of this name
        (none: this machine's), at this share of its peak. Raises ValueError for a GPU that is not known."""
        loop, data, recipe = self.settings.loop, self.settings.data, self.data.recipe

        def flops() -> float:
            fields = recipe.fields(*max(data.sizes, key=math.prod))
            whole = sum(step_flops(self.module, random_batch(fields, data.batch)))
            return float(whole * loop.accumulate)

        if gpu is None and peak_flops(self.ranks.device) is not None:
            gpu = torch.cuda.get_device_name(self.ranks.device)
        return plan_time(self.out / "metrics.jsonl", loop.steps - self.done, flops, gpu, mfu)

    def memory(self) -> "Future[MemoryPlan]":
        """What a step will take on this rank's device, with targets of the largest size.

        A thread finds it, beside what follows: from shapes, which are copied before this returns.
        """
        recipe, data = self.data.recipe, self.settings.data
        fields = recipe.fields(*max(data.sizes, key=math.prod))
        shapes = on_meta(self.module)
        beside = ThreadPoolExecutor(1, thread_name_prefix="memory")
        found = beside.submit(
            predict_memory, shapes, recipe.blocks(shapes), fields, data.batch, self.settings.loop, self.ranks
        )
        beside.shutdown(wait=False)
        return found

    def training(self, say: Callable[[str], None] = lambda line: None) -> Training:
        """The run on its device; `say` is told lines for people. Raises ValueError, one line."""
        settings, loop, ranks, recipe = self.settings, self.settings.loop, self.ranks, self.data.recipe
        batches = self.data.batches(loop.steps * loop.accumulate * settings.data.batch * ranks.world)
        held_out = self.data.validation()
        torch.backends.cudnn.benchmark = settings.cudnn_benchmark
        module = self.module.to(ranks.device)
        if settings.channels_last:
            if is_sharded(module, loop.shard, ranks):
                raise ValueError("channels_last: sharded weights lie as they are (loop.shard)")
            module = module.to(memory_format=torch.channels_last)
        if settings.compile:
            compile_blocks(recipe.blocks(module), sizes=len(settings.data.sizes))
        pictures, shown = None, settings.pictures
        if loop.pictures_every and (held_out or shown.fixed):
            batch = held_out[0] if held_out else None
            place, size = self.out / "pictures", settings.data.sizes[0]
            pictures = ValidationPictures(recipe, batch, place, shown, size, ranks)
        weights: list[Weights] = ["last", "averaged"] if shown.weights == "both" else [shown.weights]
        stated = {"data": settings.data.model_dump(mode="json"), "ranks": ranks.world}
        stated["datasets"] = self.data.stated()
        return Training(
            recipe, module, batches, loop, self.out, ranks, held_out, pictures,
            validation_of=self.data.validation_checksum, picture_weights=weights, config=self.config,
            stated=stated, compiled=settings.compile, say=say,
        )  # fmt: skip


def prepare(
    settings: RunSettings,
    shards: str | Sequence[tuple[str, int]],
    out: Path,
    ranks: Ranks,
    validation: str | None = None,
    *,
    changed: bool = False,
    build_on: torch.device | None = None,
) -> Prepared:
    """Checks all that can be wrong, then builds. Raises ValueError, one line.

    shards     a dataset, or several, each with its share of the samples
    changed    whether a run may go on with other settings than it was begun with
    build_on   where; none: on the rank's device, part by part, so that no host holds all models of its ranks
    """
    if settings.loop.wandb is not None:
        check_wandb()
    check_pictures(settings, validation is not None)
    recipe = recipe_of(settings.recipe, settings.method)
    config = config_text(settings, recipe.settings.model_dump(mode="json"))
    data = open_data(settings.data, recipe, ranks, shards, validation)
    in_steps = settings.loop.in_steps(data.batches_per_epoch() / settings.loop.accumulate)
    settings = settings.model_copy(update={"loop": in_steps})
    done, differences = _agreed(ranks, lambda: _check_folder(settings, data, out, ranks, changed))
    torch.manual_seed(settings.data.seed)
    with build_on or ranks.device:
        module = data.recipe.build(settings.loop.frozen_dtype)
    if settings.start_from is not None and not done:
        _begin_with(data.recipe, module, settings.start_from)
    return Prepared(settings, data, module, out, ranks, differences, config, done)


def _agreed(ranks: Ranks, check: Callable[[], tuple[int, list[str]]]) -> tuple[int, list[str]]:
    """What rank 0 finds, on every rank; its error too."""
    found: tuple[int, list[str]] | str = ""
    if ranks.first:
        try:
            found = check()
        except ValueError as error:
            found = str(error)
    found = ranks.gather(found)[0]
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _check_folder(
    settings: RunSettings, data: RunData, out: Path, ranks: Ranks, changed: bool
) -> tuple[int, list[str]]:
    """Steps of the run that are done, and what it was begun with otherwise. Raises ValueError where its
    folders cannot be written, its steps are done, or what differs may not."""
    recipe = data.recipe
    checkpoints = settings.loop.checkpoints or out / "checkpoints"
    for folder in (out, checkpoints):
        if isinstance(folder, Path) or "://" not in folder:
            check_writable(Path(folder))
    last = last_record(checkpoints)
    if last is None:
        return 0, []
    name, record = last
    place = f"{checkpoints}/{name}"
    if record.get("recipe") != recipe.name:
        raise ValueError(
            f"{place}: made by the recipe {record.get('recipe')}, this one is {recipe.name}; "
            "choose another --out"
        )
    if settings.loop.steps < record["step"]:
        raise ValueError(
            f"loop.steps: {settings.loop.steps}, and {record['step']} are done ({place}): "
            "set more, or choose another --out"
        )
    _check_datasets(place, record.get("datasets", []), data.stated())
    now = {
        "method": recipe.settings.model_dump(mode="json"),
        "loop": settings.loop.model_dump(mode="json"),
        "data": settings.data.model_dump(mode="json"),
        "ranks": ranks.world,
    }
    before = {
        "method": record.get("recipe_settings", {}),
        "loop": record.get("settings", {}),
        "data": record.get("data", {}),
        "ranks": record.get("ranks"),
    }
    differences = changed_settings(before, now)
    seed = [line for line in differences if line.startswith("data.seed ")]
    if seed:
        raise ValueError(f"{place}: {seed[0]}: the order goes on as it was begun; choose another --out")
    if differences and not changed:
        raise ValueError(
            f"{place} was trained with other settings: {'; '.join(differences)}: "
            "go on with --changed, or choose another --out"
        )
    return int(record["step"]), differences


def _check_datasets(
    place: str, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> None:
    """Raises ValueError where a mixture has others than it was begun with, or in another order.

    A dataset is known by its folder's name: it may lie elsewhere, and its checksum is another one after a
    forget. Checksums tell two apart that are named alike.
    """
    if len(before) < 2 or len(before) != len(now):  # other numbers of them are refused by the state itself
        return
    names, sums = ([[one.get(key) for one in of] for of in (before, now)] for key in ("name", "checksum"))
    swapped = sums[0] != sums[1] and sorted(map(str, sums[0])) == sorted(map(str, sums[1]))
    if names[0] != names[1] or swapped:
        was, given = (", ".join(map(str, of)) for of in names)
        raise ValueError(
            f"--shards: {place} was begun with {was} (in this order), and {given} "
            f"{'are given in another order' if swapped else 'are given'}: name them as they were, "
            "or choose another --out"
        )


# What a run may go on with as people like: it changes how far, how fast and where, not what is learned.
_FREE = {
    "loop.steps", "loop.shard", "loop.bucket_mib", "loop.read_every", "loop.max_skipped", "loop.checkpoints",
    "loop.checkpoint_every", "loop.keep_checkpoints", "loop.keep_every", "loop.validate_every",
    "loop.wandb", "loop.pictures_every", "loop.keep_best", "loop.patience",
    "data.latents", "data.threads", "data.ahead", "data.max_broken", "data.leave_out",
    "data.validation_batches",
    "method.denoising.cached_latents", "method.denoising.checkpoint_activations",
    "method.denoising.offload_encoders",
}  # fmt: skip
_BATCH = ("data.batch", "loop.accumulate", "ranks")


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ and count, as "data.batch was 8, is 4".

    before, now   {"method", "loop", "data": settings as JSON, "ranks": how many}

    Keys that only one of the two has are of another version of persona, and are passed over; so is a number
    of ranks that was not written down. A batch may be dealt out to other ranks: what counts is how many
    samples a step has in all. A model's folder may lie elsewhere, under its own name.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    free = set(_FREE)
    sizes = [[of.get(key) or 0 for key in _BATCH] for of in (old, new)]
    if math.prod(sizes[0]) == math.prod(sizes[1]) > 0:
        free.update(_BATCH)
    if old.get("ranks") is None:
        free.add("ranks")
    leaves = [
        f"{key} was {old[key]}, is {new[key]}"
        for key in new
        if key in old and key not in free and _as_meant(key, old[key]) != _as_meant(key, new[key])
    ]
    begun = [f"{key} was none, is set" for key in old if old[key] is None and _has_below(new, key)]
    ended = [f"{key} was set, is none" for key in new if new[key] is None and _has_below(old, key)]
    return leaves + begun + ended


def _as_meant(key: str, value: Any) -> Any:
    """The value, of a folder its own name; moments in 8 bits and in 32 may be changed for one another."""
    if key == "loop.optimiser.name" and value == "adamw_8bit":
        return "adamw"
    is_folder = key.endswith("folder") and isinstance(value, str) and "://" not in value
    return Path(value).name if is_folder else value


def _has_below(leaves: Mapping[str, Any], key: str) -> bool:
    return any(other.startswith(f"{key}.") for other in leaves)


def _leaves(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything that is no mapping."""
    if not isinstance(settings, Mapping):
        yield path, settings
        return
    for key, value in settings.items():
        yield from _leaves(value, f"{path}.{key}" if path else key)


def _begin_with(recipe: Recipe, module: torch.nn.Module, start: str) -> None:
    """Checkpoints have module paths, published files do not: the first key tells. LoRA that the start has not
    begins as new; what it has is scaled as it was there, where the checkpoint's record lies beside it."""
    file = Path(start)
    lora = {path: p for path, p in recipe.adapter(module).items() if is_lora(path)}
    try:
        if "://" in start or file.is_dir():
            checkpoint = last_checkpoint(start if "://" in start else file)
            tensors = adapter_of(checkpoint, averaged=True)
            recipe.load_adapter(module, lora | _rescaled(tensors, checkpoint.record, recipe))
            return
        if not file.is_file():
            raise ValueError("no such file or folder")
        tensors = load_file(file) if file.suffix == ".safetensors" else {}
        if file.name == "ema.safetensors":  # of what is trained alone: the rest lies beside it
            tensors = load_file(file.with_name("adapter.safetensors")) | tensors
        if any(name.startswith(("identity.", "denoiser.")) for name in tensors):
            beside = file.with_name("checkpoint.json")
            record = json.loads(beside.read_text()) if beside.is_file() else {}
            recipe.load_adapter(module, lora | _rescaled(tensors, record, recipe))
            return
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"start_from: {start}: {str(error).splitlines()[0]}") from None
    recipe.load_export(module, file, lora=lora_file(file).is_file())


def _rescaled(
    tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any], recipe: Recipe
) -> dict[str, torch.Tensor]:
    """LoRA of a run with another alpha / rank → the same change under this run's."""
    was = record.get("recipe_settings", {}).get("denoising", {}).get("lora")
    now = recipe.settings.denoising.lora
    if was is None or now is None:
        return dict(tensors)
    scale = 1.0 if was.get("alpha") is None else was["alpha"] / was["rank"]
    return peft_tensors(tensors, scale / now.scale)
