"""The loop: batches in, checkpoints and metrics out. It names no method."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.batch import Batch, Batches
from training.checkpoint import Checkpoint, CheckpointError, CheckpointFolder, checkpoints_in, load_checkpoint
from training.ema import Ema
from training.metrics import JsonLines, Metrics
from training.optimiser import (
    OptimiserSettings,
    learning_rate,
    load_optimiser_tensors,
    make_optimiser,
    optimiser_tensors,
    set_learning_rate,
)
from training.ranks import Ranks
from training.rates import Rates
from training.recipes.recipe import Recipe
from training.settings import Settings
from training.step_record import StepRecord
from training.validation import validation_loss


class LoopSettings(Settings):
    """How long, how often, and in which precision."""

    steps: int = Field(ge=1, description="optimiser steps of the whole run, resumed parts included")
    accumulate: int = Field(1, ge=1, description="batches of each rank in one step")
    precision: Literal["bf16", "fp32"] = "bf16"
    optimiser: OptimiserSettings = OptimiserSettings()
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    read_every: int = Field(50, ge=1, description="steps between two reads of what lies on the device")
    checkpoint_every: int = Field(1000, ge=1, description="steps")
    keep_checkpoints: int = Field(3, ge=1)
    keep_every: int | None = Field(None, ge=1, description="steps; checkpoints of their multiples stay")
    validate_every: int = Field(1000, ge=1, description="steps")

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Of what is not trained."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


class Training:
    """One run of one recipe in one folder; `run` goes on from the folder's last checkpoint.

    recipe       the method
    module       as `recipe.build` made it, on `ranks.device`; compiled or not
    batches      this rank's; their position is saved and restored
    validation   this rank's fixed batches; may be empty

    The folder gets `checkpoints/` and `metrics.jsonl`. Raises CheckpointError where the last checkpoint
    is of another recipe or is damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        batches: Batches,
        settings: LoopSettings,
        folder: Path,
        ranks: Ranks | None = None,
        validation: Sequence[Batch] = (),
    ) -> None:
        self.recipe, self.module, self.batches, self.settings = recipe, module, batches, settings
        self.ranks = ranks or Ranks()
        self.validation = validation
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimiser = make_optimiser(self.trained, settings.optimiser)
        self.ema = Ema(self.trained, settings.ema_decay)
        self.step = 0
        self._folder = folder
        found = checkpoints_in(folder / "checkpoints")
        if found:
            self._resume(load_checkpoint(found[-1]), found[-1])
        # Rank 0's parameters go to all ranks here, so after they are loaded.
        self._model = self.ranks.wrap(module)
        self._record = StepRecord(self.ranks)
        self._rates = Rates(self.ranks.device)

    def run(self) -> int:
        """Trains to the last step. Returns how many steps are done in all.

        Raises NonFiniteError where a loss or gradient was not finite, and what the batches raise.
        """
        settings = self.settings
        metrics = JsonLines(self._folder / "metrics.jsonl", self.step + 1) if self.ranks.first else None
        checkpoints = CheckpointFolder(
            self._folder / "checkpoints", settings.keep_checkpoints, settings.keep_every
        )
        stream = iter(self.batches)
        try:
            while self.step < settings.steps:
                self._rates.begin()
                batches = [next(stream) for _ in range(settings.accumulate)]
                self._rates.got(batches)
                self._one_step(batches)
                self.step += 1
                last = self.step == settings.steps
                due = last or self.step % settings.checkpoint_every == 0
                if due or self.step % settings.read_every == 0:
                    self._report(metrics)
                if self.validation and (last or self.step % settings.validate_every == 0):
                    self._validate(metrics)
                if due and self.ranks.first:
                    self._save(checkpoints)
        finally:
            checkpoints.close()
            if metrics is not None:
                metrics.close()
        return self.step

    def _one_step(self, batches: Sequence[Batch]) -> None:
        """Gradients of all micro-batches of all ranks, then one update. Reads nothing from the device."""
        settings, ranks = self.settings, self.ranks
        self._record.begin(self.step + 1)
        moved = [batch.to(ranks.device) for batch in batches]
        # The mean is over the samples that count of all ranks and micro-batches, not a mean of means.
        total = ranks.sum(torch.stack([batch.weight.sum() for batch in moved]).sum()).clamp(min=1)
        for number, batch in enumerate(moved):
            with ranks.averaging(self._model, last=number == len(moved) - 1):
                with self._autocast():
                    losses = self._model(batch.fields, batch.streams)
                share = torch.where(batch.weight > 0, losses * batch.weight, 0).sum() / total
                (share * ranks.world).backward()
            self._record.add(batch.keys, losses, batch.weight, share)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), settings.optimiser.clip_norm)
        set_learning_rate(self.optimiser, learning_rate(settings.optimiser, self.step, settings.steps))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(self.step)
        self._record.end(norm)

    def _report(self, metrics: Metrics | None) -> None:
        """Waits for the device, raises if a step was not finite, writes what the steps gave."""
        results = self._record.read()
        rates = self._rates.since_last(self.module, self.ranks)
        for result in results:
            values = {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "lr": learning_rate(self.settings.optimiser, result.step - 1, self.settings.steps),
            }
            if metrics is not None:
                metrics.write(result.step, values | (rates if result is results[-1] else {}))

    def _validate(self, metrics: Metrics | None) -> None:
        with self._autocast():
            loss = validation_loss(self.module, self.validation, self.ranks).item()
        if metrics is not None:
            metrics.write(self.step, {"validation_loss": loss})
        self._rates.restart()

    def _save(self, checkpoints: CheckpointFolder) -> None:
        tensors: dict[str, dict[str, Tensor]] = {
            "adapter": dict(self.recipe.adapter(self.module)),
            "ema": self.ema.tensors,
            "optimiser": optimiser_tensors(self.optimiser, self.trained),
        }
        record = {
            "recipe": self.recipe.name,
            "recipe_settings": self.recipe.settings.model_dump(mode="json"),
            "batches": self.batches.state_dict(),
            "settings": self.settings.model_dump(mode="json"),
        }
        checkpoints.save(self.step, tensors, record)

    def _resume(self, checkpoint: Checkpoint, folder: Path) -> None:
        made_by = checkpoint.record.get("recipe")
        if made_by != self.recipe.name:
            raise CheckpointError(f"{folder}: made by the recipe {made_by}, this one is {self.recipe.name}")
        try:
            self.recipe.load_adapter(self.module, checkpoint.tensors["adapter"])
            self.ema.load(checkpoint.tensors["ema"])
            load_optimiser_tensors(self.optimiser, self.trained, checkpoint.tensors["optimiser"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: {str(error).splitlines()[0]}") from None
        self.batches.load_state_dict(checkpoint.record["batches"])
        self.step = checkpoint.step

    def _autocast(self) -> AbstractContextManager[object]:
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.ranks.device.type, torch.bfloat16)
