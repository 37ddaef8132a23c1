"""The settings of a run, as a config holds them, without torch: so a wrong word is answered at once.

What they are settings of is in data.py, step.py, optimiser.py and generation/.
"""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from shards.format.contents import REGION_NAMES
from shards.reading.buckets import Size, sizes_around
from training.settings import Numbers, Settings, named_files, read_config

if TYPE_CHECKING:
    import torch


class RatesSettings(Settings):
    """Learning rates of parts; those that are none have `lr`."""

    identity: float | None = Field(
        None, gt=0, description="of what makes identity tokens, as the decoder; none: lr"
    )
    to_kv: float | None = Field(None, gt=0, description="of keys and values of identity; none: lr")
    lora: float | None = Field(None, gt=0, description="of LoRA; none: lr")
    base: float | None = Field(None, gt=0, description="of a base that is tuned, as the UNet; none: lr")


class OptimiserSettings(Settings):
    """The optimiser; gradients are clipped by their norm over all parameters."""

    name: Literal["adamw", "adamw_8bit", "adafactor", "prodigy", "schedule_free"] = Field(
        "adamw",
        description="adamw_8bit: moments in 8 bits, a quarter of the memory, slower; adafactor: of the "
        "second moment rows and columns; prodigy: finds its rate; schedule_free: AdamW that averages itself",
    )
    lr: float = Field(
        1e-4,
        gt=0,
        description="learning rate, behind the warm-up; prodigy multiplies its own by it: 1 is usual",
    )
    rates: RatesSettings = RatesSettings()
    betas: Numbers = Field(
        (0.9, 0.999),
        min_length=2,
        max_length=2,
        description="of the two moments, from 0 to below 1; adafactor has its own",
    )
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment; not of adafactor")
    weight_decay: float = Field(
        1e-2,
        ge=0,
        description="of matrices and convolutions; biases, norms, queries and sizes of DoRA have none",
    )
    clip_norm: float = Field(1.0, gt=0, description="of the gradient over all parameters, at most")
    warmup_steps: int = Field(500, ge=0, description="in which the learning rate rises to lr")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate, behind the warm-up"
    )
    last_lr_share: float = Field(0.0, ge=0, le=1, description="of lr, at the end of linear or cosine")

    @model_validator(mode="after")
    def _fits(self) -> "OptimiserSettings":
        if self.name == "schedule_free" and self.schedule != "constant":
            raise ValueError(f"schedule {self.schedule}: schedule_free has none: constant")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)}: each must be from 0 to below 1")
        if self.name in ("prodigy", "schedule_free") and self.betas[0] == 0:
            raise ValueError(f"betas {list(self.betas)}: {self.name} needs a first one above 0")
        if self.name == "prodigy" and self.lr < 0.01:
            raise ValueError(f"lr {self.lr}: prodigy finds the rate and multiplies it by lr: 1 is usual")
        if self.name == "prodigy" and self.rates != RatesSettings():
            raise ValueError("rates: prodigy finds one rate for all parts")
        return self


def _steps_or_epochs(every: int | str) -> int | str:
    if isinstance(every, int):
        if every < 1:
            raise ValueError("must be at least 1")
    elif not re.fullmatch(r"\d*\.?\d+ epochs?", every) or float(every.split()[0]) == 0:
        raise ValueError("must be steps, or as '1 epoch', '0.5 epochs'")
    return every


Every = Annotated[int | str, AfterValidator(_steps_or_epochs)]
_EVERY = ("checkpoint_every", "keep_every", "validate_every", "pictures_every")


class LoopSettings(Settings):
    """How long, how often, and in which precision."""

    steps: int = Field(
        0, ge=0, description="optimiser steps of the whole run, resumed parts included; 0: epochs says it"
    )
    epochs: float | None = Field(None, gt=0, description="passes through the dataset, instead of steps")
    accumulate: int = Field(1, ge=1, description="batches of each rank in one step")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16: autocast; frozen parts lie in bf16")
    shard: bool | None = Field(
        None, description="what is trained over the ranks (FSDP2); none: where it is above 2e9 parameters"
    )
    bucket_mib: int = Field(
        25, ge=1, description="of gradients that travel between ranks at a time, where none is sharded"
    )
    optimiser: OptimiserSettings = OptimiserSettings()
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="of the moving averages of what is trained")
    max_skipped: int = Field(
        10, ge=0, description="steps in a row that were not finite and are skipped; one more stops the run"
    )
    read_every: int = Field(50, ge=1, description="steps between two reads of what lies on the device")
    checkpoints: str | None = Field(None, description="folder or URL, instead of checkpoints/ of the run")
    checkpoint_every: Every = Field(1000, description="steps, or as `1 epoch`")
    keep_checkpoints: int = Field(3, ge=1, description="of the last ones")
    keep_best: bool = Field(
        True, description="where there is validation, each checkpoint is validated, and the best one stays"
    )
    keep_every: Every | None = Field(
        None,
        description="steps, or as `2 epochs`; checkpoints of their multiples stay. With epochs here "
        "or in checkpoint_every it is the nearest multiple of checkpoint_every",
    )
    validate_every: Every = Field(1000, description="steps, or as `0.5 epochs`")
    patience: int | None = Field(
        None, ge=1, description="validations in a row without a lower loss that end the run; none: it goes on"
    )
    wandb: str | None = Field(
        None, min_length=1, description="project of Weights & Biases; none: nothing sent"
    )
    pictures_every: Every | None = Field(
        None, description="steps, or as `1 epoch`; grids of pictures, or none"
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> "LoopSettings":
        if bool(self.steps) == (self.epochs is not None):
            raise ValueError("steps or epochs: one of the two says how long the run is")
        return self

    def in_steps(self, steps_per_epoch: float) -> "LoopSettings":
        """The same with epochs as steps; of a part of a step a whole one, and at least one.

        `keep_every` is then a multiple of `checkpoint_every`: rounded each by itself, their multiples would
        hardly meet, and nothing would stay."""

        def steps_of(every: int | str | None) -> int | None:
            if isinstance(every, str):
                return max(round(float(every.split()[0]) * steps_per_epoch), 1)
            return every

        changed: dict[str, Any] = {name: steps_of(getattr(self, name)) for name in _EVERY}
        kept, saved = changed["keep_every"], changed["checkpoint_every"]
        if kept is not None and any(isinstance(e, str) for e in (self.keep_every, self.checkpoint_every)):
            changed["keep_every"] = max(round(kept / saved), 1) * saved
        if self.epochs is not None:
            changed |= {"steps": max(math.ceil(self.epochs * steps_per_epoch - 1e-9), 1), "epochs": None}
        return self.model_copy(update=changed)

    def falls_on(self, name: str, step: int) -> bool:
        """Whether what is done every so often, as `checkpoint_every`, is due. Epochs are steps by then."""
        every = getattr(self, name)
        return every is not None and step % int(every) == 0

    @property
    def frozen_dtype(self) -> "torch.dtype":
        """Of what is not trained."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32


_Side = Annotated[int, Field(ge=32, multiple_of=32)]
_Size = Annotated[tuple[_Side, _Side], Field(strict=False)]
_Buckets = Annotated[tuple[_Size, ...], Field(strict=False, min_length=1)]


class DataSettings(Settings):
    """What is read, and how."""

    height_px: int = Field(1024, ge=64, multiple_of=64, description="of targets; see buckets")
    width_px: int = Field(1024, ge=64, multiple_of=64, description="of targets; see buckets")
    buckets: Literal["one", "area"] | _Buckets = Field(
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
    min_target_px: int | None = Field(
        None, ge=1, description="shorter side of the part of a photo that becomes a target; less is left out"
    )
    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of photos that are mirrored; no target whose caption has left or right",
    )
    crop_jitter: float = Field(
        0.0, ge=0, lt=1, description="share of a target's sides that is cut off besides, at most"
    )
    colour_jitter: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share by which brightness and colourfulness change, alike in both photos",
    )
    regions: list[str] = Field(default_factory=list, description="that both photos of a pair must show")
    threads: int = Field(2, ge=1, description="that read and decode, of each rank")
    ahead: int = Field(2, ge=1, description="batches in work besides the one in use")
    seed: int = Field(0, ge=0, description="of the order, of what is drawn and of new weights")
    leave_out: str | None = Field(
        None, description="a text file with a sample's key a line, # begins a comment; they count for nothing"
    )
    max_broken: int = Field(100, ge=0, description="samples of an epoch that may be unreadable")
    validation_batches: int = Field(4, ge=1, description="of each rank")

    @field_validator("regions")
    @classmethod
    def _are_regions(cls, regions: list[str]) -> list[str]:
        unknown = [name for name in regions if name not in REGION_NAMES]
        if unknown:
            raise ValueError(f"there is no region {unknown[0]!r}: {', '.join(REGION_NAMES)}")
        return regions

    @model_validator(mode="after")
    def _runs_hold_batches(self) -> "DataSettings":
        if self.buckets != "one" and self.bucket_run % self.batch:
            raise ValueError(f"bucket_run {self.bucket_run} must be a multiple of batch {self.batch}")
        return self

    @property
    def changes_pictures(self) -> bool:
        """Whether targets are not what a photo gives: latents are of photos as they are."""
        return max(self.flip, self.crop_jitter, self.colour_jitter) > 0

    @property
    def sizes(self) -> list[Size]:
        """Height and width of targets, px."""
        if self.buckets == "one":
            return [(self.height_px, self.width_px)]
        if self.buckets == "area":
            return sizes_around(self.height_px, self.width_px)
        return list(self.buckets)


class SamplingSettings(Settings):
    """The defaults are those of the paper's inference code; it takes guidance 8 for stories."""

    steps: int = Field(50, ge=1, le=1000, description="of denoising")
    guidance: float = Field(12.0, ge=1, description="1: none, and half of the work")
    identity_scale: float = Field(0.7, ge=0, description="of identity attention; 1 in training")


class PictureSampling(SamplingSettings):
    """Sampling as a training is: all of the identity, and little guidance."""

    steps: int = Field(25, ge=1, le=1000, description="of denoising")
    guidance: float = Field(5.0, ge=1, description="1: none, and half of the work")
    identity_scale: float = Field(1.0, ge=0, description="of identity attention")


class FixedPicture(Settings):
    """A row of a grid that is the same in every training: a reference and a prompt."""

    sample: str = Field(pattern=r".+:.+", description="DATASET:KEY, whose photos are the reference")
    prompt: str = Field(min_length=1, description="of the picture")


class PictureSettings(Settings):
    """Of grids that a training writes."""

    people: int = Field(4, ge=1, description="rows of held-out people, of the first batch of each rank")
    weights: Literal["both", "last", "averaged"] = Field(
        "both", description="of the last step, or their moving averages, a grid of each"
    )
    fixed: list[FixedPicture] = Field(
        default_factory=list, description="references and prompts of a grid besides, [{sample, prompt}, …]"
    )
    sampling: PictureSampling = PictureSampling()


class RunSettings(Settings):
    """One training."""

    recipe: str
    method: dict[str, Any] = Field(default_factory=dict, description="settings of the recipe")
    data: DataSettings = DataSettings()
    loop: LoopSettings
    pictures: PictureSettings = PictureSettings()
    compile: bool = True
    channels_last: bool = Field(
        False, description="weights of convolutions lie with their channels last; not where they are sharded"
    )
    cudnn_benchmark: bool = Field(
        False, description="cuDNN takes the fastest of its algorithms for each shape"
    )
    start_from: str | None = Field(
        None,
        description="to begin with: averages of a run or checkpoint (folder or URL), adapter.safetensors, "
        "ema.safetensors, or a published file",
    )


def named_configs() -> list[str]:
    """Names of the configs that come with the project."""
    return named_files("training.configs")


def read_settings(config: str, changes: dict[str, Any]) -> RunSettings:
    """A config by its name or path, with values set at dotted paths. Raises ValueError, one line."""
    return read_config(RunSettings, "training.configs", config, changes, "config")


def config_text(settings: RunSettings, method: Mapping[str, Any]) -> str:
    """Every setting as a config that `persona train --config` reads; equal settings give equal bytes.

    method   as the recipe has it, each key of it
    """
    whole = settings.model_dump(mode="json") | {"method": dict(method)}
    head = "# All settings of a training: `persona train THIS --shards DIR --out DIR` begins one like it.\n"
    return head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=110)
