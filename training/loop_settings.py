"""Settings of the loop: how long, how often, in which precision, and on how many ranks' memory."""

from typing import Literal

import torch
from pydantic import Field

from training.optimiser import OptimiserSettings
from training.settings import Settings


class LoopSettings(Settings):
    """How long, how often, and in which precision."""

    steps: int = Field(ge=1, description="optimiser steps of the whole run, resumed parts included")
    accumulate: int = Field(1, ge=1, description="batches of each rank in one step")
    precision: Literal["bf16", "fp32"] = "bf16"
    shard: bool | None = Field(
        None, description="what is trained over the ranks (FSDP2); none: where it is above 2e9 parameters"
    )
    optimiser: OptimiserSettings = OptimiserSettings()
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    read_every: int = Field(50, ge=1, description="steps between two reads of what lies on the device")
    checkpoints: str | None = Field(None, description="folder or URL, instead of checkpoints/ of the run")
    checkpoint_every: int = Field(1000, ge=1, description="steps")
    keep_checkpoints: int = Field(3, ge=1)
    keep_every: int | None = Field(None, ge=1, description="steps; checkpoints of their multiples stay")
    validate_every: int = Field(1000, ge=1, description="steps")
    wandb: str | None = Field(
        None, min_length=1, description="project of Weights & Biases; none: nothing sent"
    )
    pictures_every: int | None = Field(None, ge=1, description="steps; grids of held-out people, or none")

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Of what is not trained."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32
