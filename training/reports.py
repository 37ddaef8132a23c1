"""What a training tells of itself: metrics, lines for people, and what follows from its losses."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from shards.format.atomic_file import write_whole
from training.batch import TALLIED, Batch
from training.metrics import (
    JsonLines,
    Metrics,
    SmoothedLoss,
    TensorBoard,
    Together,
    Validated,
    WeightsAndBiases,
    progress_line,
)
from training.optimiser import learning_rate
from training.ranks import Ranks
from training.run_settings import LoopSettings
from training.step import StepResult

SAID_EVERY_S = 30.0
"""Longest silence of a training that makes steps; what they gave is said where it is read."""
_TALLIED_AS = {
    "upscaled": "of the samples have a target larger than its part of the photo (data.min_target_px)",
    "too_small": "of the samples are left out: their target's part of the photo is too small",
}


class Reports:
    """Of one run. All ranks call all of it but for `open`'s files, which rank 0 has.

    say         told a line for people
    validated   states what will be validated, and no validation yet
    """

    def __init__(
        self, settings: LoopSettings, ranks: Ranks, say: Callable[[str], None], validated: Validated
    ) -> None:
        self._settings, self._ranks, self._say = settings, ranks, say
        self._metrics: Metrics | None = None
        self._smoothed = SmoothedLoss()
        self.validated = validated
        self._tallied: Counter[str] = Counter()
        self._told: set[str] = set()
        self._said_at = monotonic()

    @property
    def patience_is_over(self) -> bool:
        """Whether so many validations were no gain that the run ends."""
        patience = self._settings.patience
        return patience is not None and self.validated.without_gain >= patience

    def open(self, folder: Path, first_step: int, config: str | None, about: Mapping[str, Any]) -> None:
        """Opens the places of metrics; what a killed run wrote of steps from `first_step` on goes.

        config   of the run as text, for the folder's config.yaml and the boards
        about    the same as JSON holds it
        """
        if not self._ranks.first:
            return
        if config is not None:
            write_whole(folder / "config.yaml", config.encode())
        places: list[Metrics] = [
            JsonLines(folder / "metrics.jsonl", first_step),
            TensorBoard(folder / "tensorboard", first_step),
        ]
        if self._settings.wandb is not None:
            places.append(WeightsAndBiases(self._settings.wandb, folder.name, about))
        self._metrics = Together(places)
        if config is not None:
            self._metrics.text("config", config)

    def close(self) -> None:
        """After the last step."""
        if self._metrics is not None:
            self._metrics.close()

    def tally(self, batches: Sequence[Batch]) -> None:
        """Counts what the batches of a step state of their samples."""
        for batch in batches:
            self._tallied.update(batch.tally)
            self._tallied["samples"] += len(batch)

    def steps(
        self,
        step: int,
        results: Sequence[StepResult],
        rates: Mapping[str, float],
        by_time: Mapping[str, float],
    ) -> None:
        """What the steps up to `step` gave since the last read; rates and losses by time go with the last."""
        besides = {**rates, **by_time, **self._read_tally(step)}
        for result in results:
            lr = learning_rate(self._settings.optimiser, result.step - 1, self._settings.steps)
            if result.skipped is None:
                smoothed = self._smoothed.after(result.loss)
                values = {"loss": result.loss, "smoothed_loss": smoothed}
                values |= {"grad_norm": result.grad_norm, "lr": lr}
            else:
                values = {"skipped": 1.0, "lr": lr}
                self._say(f"{result.skipped}: skipped, no weight is changed by it")
            self._write(result.step, values | (besides if result is results[-1] else {}))
        losses = [result.loss for result in results if result.skipped is None]
        if results:
            mean = {"loss": sum(losses) / len(losses), "smoothed_loss": smoothed} if losses else {}
            self._say(progress_line(step, self._settings.steps, {**mean, "lr": lr, **rates}))
            self._said_at = monotonic()

    def alive(self, step: int) -> None:
        """Says that a step is made, where nothing was said for long. Reads nothing from the device."""
        if monotonic() - self._said_at >= SAID_EVERY_S:
            self._say(progress_line(step, self._settings.steps, {}))
            self._said_at = monotonic()

    def validation(self, step: int, loss: float) -> None:
        """A validation's loss, the same on all ranks; it is no number where nothing counted."""
        self.validated = self.validated.after(step, loss)
        if not isfinite(loss):
            self._say(
                f"step {step}: validated, the loss is no number: no sample counts, or one is not finite"
            )
            return
        self._write(step, {"validation_loss": loss})
        best = ", the lowest so far" if self.validated.without_gain == 0 else ""
        self._say(f"step {step}: validated, loss {loss:.4f}{best}")

    def pictures(self, step: int, files: Mapping[str, Path], weights: str) -> None:
        """Pictures by name, of these weights."""
        if self._metrics is not None:
            self._metrics.pictures(step, files)
        self._say(f"step {step}: made pictures of the {weights} weights")

    def state(self, step: int) -> dict[str, Any]:
        """For a checkpoint of this step."""
        state: dict[str, Any] = {
            "smoothed_loss": asdict(self._smoothed),
            "validated": asdict(self.validated),
        }
        if self.validated.step == step and self.validated.loss is not None:
            state["validation_loss"] = self.validated.loss
        return state

    def load_state(self, record: Mapping[str, Any]) -> None:
        """Of a checkpoint's record; older ones have none. Losses of other samples are not compared."""
        self._smoothed = SmoothedLoss(**record.get("smoothed_loss", {}))
        before = Validated(**record.get("validated", {}))
        if not self.validated.samples:
            self.validated = before
        elif self.validated.is_comparable(before):
            of = self.validated  # an older record does not state it, and the next one shall
            self.validated = replace(before, checksum=of.checksum, samples=of.samples)
        elif before.lowest is not None:
            self._say(
                f"validates {self.validated.samples} samples, which are not the {before.samples} of "
                "before (another held-out set, or other batches or ranks): the best is looked for anew"
            )

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.write(step, values)

    def _read_tally(self, step: int) -> dict[str, float]:
        """Shares of the samples since the last read, of all ranks; a share of none is left out."""
        own = [float(self._tallied[name]) for name in ("samples", *TALLIED)]
        samples, *found = self._ranks.sum(torch.tensor(own, device=self._ranks.device)).tolist()
        self._tallied.clear()
        shares = {name: n / samples for name, n in zip(TALLIED, found, strict=True) if n}
        if shares.keys() - self._told:
            parts = [f"{shares[name]:.0%} {_TALLIED_AS[name]}" for name in TALLIED if name in shares]
            self._say(f"step {step}: {', '.join(parts)}")
            self._told |= shares.keys()
        return shares
