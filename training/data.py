"""The data of a run from its settings: datasets, sizes, latents or pictures, loaders; checked on the way."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shards.reading.buckets import BucketedPairs, Size, sizes_around
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.pairs import Pairs
from shards.reading.photo_batches import BatchMemory
from shards.reading.steps import Position
from shards.reading.torch_dataset import PinnedMemory
from training.batch import Batch
from training.latents import sizes_text, statement_of
from training.pair_fields import PairFields, members_for
from training.ranks import Ranks
from training.recipes.recipe import Recipe
from training.settings import Settings
from training.shard_batches import ShardBatches, check_dataset, no_reconstruction

_LOG = logging.getLogger(__name__)
_Side = Annotated[int, Field(ge=32, multiple_of=32)]
_Size = Annotated[tuple[_Side, _Side], Field(strict=False)]


class DataSettings(Settings):
    """What is read, and how."""

    height_px: int = Field(1024, ge=64, multiple_of=64)
    width_px: int = Field(1024, ge=64, multiple_of=64)
    buckets: Literal["one", "area"] | Annotated[tuple[_Size, ...], Field(strict=False, min_length=1)] = Field(
        "one",
        description="one: all targets have height_px and width_px; area: sizes of about that area, in steps "
        "of 64 px, by the photo's proportions; or the sizes, [[height, width], …]",
    )
    bucket_run: int = Field(64, ge=1, description="samples in a row of one size; a multiple of batch")
    latents: Literal["auto", "always", "never"] = Field(
        "auto", description="auto: of the dataset where it has them at these sizes, else photos are encoded"
    )
    batch: int = Field(8, ge=1, description="samples of one rank in one batch")
    tail: Literal["pad", "drop"] = Field(
        "pad", description="what fills no batch at an epoch's end: is filled up at weight 0, or left out"
    )
    regions: list[str] = Field(default_factory=list, description="that both photos of a pair must show")
    threads: int = Field(2, ge=1, description="that read and decode, of each rank")
    ahead: int = Field(2, ge=1, description="batches in work besides the one in use")
    seed: int = Field(0, ge=0)
    max_broken: int = Field(100, ge=0, description="samples of an epoch that may be unreadable")
    validation_batches: int = Field(4, ge=1, description="of each rank")

    @model_validator(mode="after")
    def _runs_hold_batches(self) -> "DataSettings":
        if self.buckets != "one" and self.bucket_run % self.batch:
            raise ValueError(f"bucket_run {self.bucket_run} must be a multiple of batch {self.batch}")
        return self

    @property
    def sizes(self) -> list[Size]:
        """Height and width of targets, px."""
        if self.buckets == "one":
            return [(self.height_px, self.width_px)]
        if self.buckets == "area":
            return sizes_around(self.height_px, self.width_px)
        return list(self.buckets)


@dataclass(frozen=True)
class RunData:
    """The datasets of a run, opened and checked.

    recipe       as it was given, or reading latents where the datasets have them
    """

    recipe: Recipe
    settings: DataSettings
    ranks: Ranks
    trained: DatasetFolder
    held_out: DatasetFolder | None

    def batches(self, run_samples: int) -> ShardBatches:
        """This rank's, without an end. `run_samples`: of all ranks, to the end of the training."""
        loader = self._loader(self.trained, reconstruct=self.recipe.reconstruction_share(0) > 0)
        return ShardBatches(loader, run_samples=run_samples, reconstruction=self.recipe.reconstruction_share)

    def validation(self) -> list[Batch]:
        """This rank's fixed batches of held-out people; none without such a dataset."""
        if self.held_out is None:
            return []
        loader = self._loader(self.held_out, reconstruct=False)
        fixed = ShardBatches(loader, run_samples=1, reconstruction=no_reconstruction)
        return [next(fixed) for _ in range(self.settings.validation_batches)]

    def _loader(self, folder: DatasetFolder, *, reconstruct: bool) -> Loader:
        settings, recipe, ranks = self.settings, self.recipe, self.ranks
        memory = PinnedMemory() if ranks.device.type == "cuda" else BatchMemory()
        tokenise = recipe.base.tokeniser()
        decoders = [
            PairFields(recipe.fields(*size), tokenise, size, reconstruct=reconstruct, memory=memory)
            for size in settings.sizes
        ]
        members = members_for(recipe.fields(*settings.sizes[0]), reconstruct=reconstruct)
        asked: dict[str, Any] = {"regions": settings.regions, "members": members}
        source = (
            Pairs(folder, **asked)
            if settings.buckets == "one"
            else BucketedPairs(folder, settings.sizes, length=settings.bucket_run, **asked)
        )
        return Loader(
            source, decoders, settings.batch, Position(settings.seed), ranks.rank, ranks.world,
            tail=settings.tail, threads=settings.threads, ahead=settings.ahead,
            max_broken=settings.max_broken,
        )  # fmt: skip


def open_data(
    settings: DataSettings, recipe: Recipe, ranks: Ranks, shards: str, validation: str | None = None
) -> RunData:
    """Opens and checks what the recipe needs. Raises ValueError, one line; no model is built before."""
    for size in settings.sizes:
        recipe.base.check_size(*size)
    folders = {name: DatasetFolder(name) for name in (shards, validation) if name is not None}
    if _serve_latents(folders, recipe, settings):
        recipe = recipe.with_denoising(cached_latents=True)
    for folder in folders.values():
        check_dataset(
            folder, recipe.fields(*settings.sizes[0]), batch=settings.batch, world=ranks.world,
            regions=settings.regions,
        )  # fmt: skip
    held_out = folders[validation] if validation is not None else None
    return RunData(recipe, settings, ranks, folders[shards], held_out)


def _serve_latents(folders: dict[str, DatasetFolder], recipe: Recipe, settings: DataSettings) -> bool:
    """Whether all datasets have the latents of this run. Raises ValueError where they must and do not, and
    for latents of another VAE."""
    fields = {field.name for field in recipe.fields(*settings.sizes[0])}
    must = settings.latents == "always" or "target_latents" in fields
    if not must and (settings.latents == "never" or "target" not in fields):
        return False
    lacking: list[str] = []
    stated_by = {name: statement_of(folder.about, name) for name, folder in folders.items()}
    vae = recipe.base.vae.identity() if any(stated_by.values()) else None
    for name, stated in stated_by.items():
        if stated is None or vae is None:
            lacking.append(f"{name} has no latents")
            continue
        stated.check_vae(vae, name)
        if list(stated.sizes) != settings.sizes:
            ours = sizes_text(settings.sizes)
            lacking.append(f"{name} has latents of {sizes_text(stated.sizes)} px, targets are of {ours}")
    if not lacking:
        return True
    if must:
        raise ValueError(
            f"the run reads latents only, and {lacking[0]} (persona shards precompute makes them)"
        )
    if len(lacking) < len(folders) or "has latents" in lacking[0]:
        _LOG.warning("%s: photos are encoded as they come", lacking[0])
    return False
