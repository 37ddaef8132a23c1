"""One optimiser step over all ranks, its settings, and the record of what steps have given.

A step reads nothing back from the device: reading a number makes the host wait for it. So losses and gradient
norms stay there until `StepRecord.read`, which fetches all of them at once. A step that was not finite
changes no weight and no state of the optimiser, which the device decides by itself; its samples are named
when it is read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.bases.schedules import TIMESTEPS
from training.batch import Batch
from training.optimiser import (
    Ema,
    learning_rate,
    load_optimiser_tensors,
    make_optimiser,
    optimiser_tensors,
    set_learning_rate,
    update,
)
from training.ranks import Ranks, as_part_of, hand_gradients, is_sharded, own_part, part_of, shard
from training.run_settings import LoopSettings


class NonFiniteError(RuntimeError):
    """Too many steps in a row were NaN or infinite; `str()` is one line that names step and samples."""


@dataclass(frozen=True)
class StepResult:
    """Of one step over all ranks: weighted mean loss, norm of the gradient before it was clipped.

    skipped   why the step changed no weight and no moment, in one line that names its samples; None where it
              was finite
    """

    step: int
    loss: float
    grad_norm: float
    skipped: str | None = None


BINS = 10  # of the time, each with a mean loss of its own


@dataclass
class _Row:
    step: int
    keys: list[str]
    losses: list[Tensor]
    counts: list[Tensor]  # whether a sample counts
    loss: Tensor
    norm: Tensor


class StepRecord:
    """`begin` a step, `add` its micro-batches, `end` it; `read` what has gathered.

    max_skipped   steps in a row that may be not finite
    """

    def __init__(self, ranks: Ranks, max_skipped: int = 0) -> None:
        self._ranks, self._max_skipped = ranks, max_skipped
        self._rows: list[_Row] = []
        self._in_a_row = 0
        # Of each part of the time: sum of the losses, and how many there are.
        self._by_time = torch.zeros(2, BINS, device=ranks.device)

    def begin(self, step: int) -> None:
        """Of all ranks."""
        zero = torch.zeros((), device=self._ranks.device)
        self._rows.append(_Row(step, [], [], [], zero, zero))

    def add(self, keys: Sequence[str], losses: Tensor, weight: Tensor, times: Tensor) -> None:
        """Float [B] losses, weights, and times from 0 (no noise) to 1 of a micro-batch."""
        row = self._rows[-1]
        counts = (weight > 0) & torch.isfinite(losses)
        place = (times * BINS).long().clamp(0, BINS - 1)
        both = torch.stack([torch.where(counts, losses.detach().float(), 0), counts.float()])
        self._by_time.index_add_(1, place, both)
        row.keys += keys
        row.losses.append(losses.detach())
        row.counts.append(weight > 0)

    def end(self, loss: Tensor, norm: Tensor) -> None:
        """Scalars, the same on every rank: mean loss of the step, norm of its gradient."""
        self._rows[-1].loss, self._rows[-1].norm = loss.detach(), norm.detach()

    def read(self) -> list[StepResult]:
        """The steps since the last read; all ranks read together. Raises NonFiniteError, on every rank, where
        more than `max_skipped` in a row were not finite."""
        rows, self._rows = self._rows, []
        if not rows:
            return []
        losses = torch.stack([row.loss for row in rows])
        norms = torch.stack([row.norm.to(losses.device, torch.float32) for row in rows])
        results = []
        for row, (loss, norm) in zip(rows, torch.stack([losses, norms], 1).tolist(), strict=True):
            skipped = None
            if not (math.isfinite(loss) and math.isfinite(norm)):
                skipped = self._why(row, norm)
            self._in_a_row = 0 if skipped is None else self._in_a_row + 1
            if self._in_a_row > self._max_skipped:
                raise NonFiniteError(
                    f"{skipped}; the run stops here: {self._in_a_row} such steps in a row "
                    f"(loop.max_skipped is {self._max_skipped}; data.leave_out names samples to leave out)"
                )
            results.append(StepResult(row.step, loss, norm, skipped))
        return results

    def read_by_time(self) -> dict[str, float]:
        """Mean loss since the last such read, of all ranks, by the tenth of the time that it is of, as
        {"loss_at/0.3": …} of 0.3 to 0.4; tenths without a sample are left out. All ranks read together."""
        sums, counts = self._ranks.sum(self._by_time.clone()).tolist()
        self._by_time.zero_()
        return {
            f"loss_at/{place / BINS:.1f}": total / count
            for place, (total, count) in enumerate(zip(sums, counts, strict=True))
            if count
        }

    def _why(self, row: _Row, norm: float) -> str:
        finite = torch.isfinite(torch.cat(row.losses)) | ~torch.cat(row.counts)
        bad = [key for key, fine in zip(row.keys, finite.tolist(), strict=True) if not fine]
        named = [key for keys in self._ranks.gather(bad) for key in keys]
        if named:
            return f"step {row.step}: the loss of {', '.join(named)} is not finite"
        everyone = [key for keys in self._ranks.gather(row.keys) for key in keys]
        return (
            f"step {row.step}: the gradient's norm is {norm} though each loss is finite; "
            f"its samples: {', '.join(everyone)}"
        )


class Step:
    """The module among its ranks, its optimiser and its moving averages; a call is one step.

    module    on `ranks.device`. Rank 0's parameters go to all ranks here, so load them before
    blocks    the repeated layers of the module, by which it is sharded where it is
    backend   of torch.compile, for what of the update can be compiled; none: nothing is

    trained   parameters by name
    own       this rank's parts of them, or themselves: what the optimiser and the averages work on
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        settings: LoopSettings,
        ranks: Ranks,
        *,
        backend: str | Callable[..., Any] | None = None,
    ) -> None:
        self.module, self.settings, self.ranks = module, settings, ranks
        self._schedule = module.denoiser.schedule
        self._sharded = is_sharded(module, settings.shard, ranks)
        if self._sharded:
            self._model = shard(module, blocks, ranks, settings.frozen_dtype)
        else:
            self._model = ranks.wrap(module, settings.bucket_mib)
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.own = {name: own_part(p) for name, p in self.trained.items()}
        self.optimiser = make_optimiser(self.own, settings.optimiser, in_parts=self._sharded, backend=backend)
        self.ema = Ema(self.own, settings.ema_decay, self.optimiser)

    def __call__(self, number: int, batches: Sequence[Batch], record: StepRecord) -> None:
        """Step `number`, from 0: gradients of all micro-batches of all ranks, then one update, which changes
        nothing where the loss or the gradient is not finite."""
        settings, ranks = self.settings, self.ranks
        record.begin(number + 1)
        loss = torch.zeros((), device=ranks.device)
        moved = [batch.to(ranks.device) for batch in batches]
        # The mean is over the samples that count of all ranks and micro-batches, not a mean of means.
        total = ranks.sum(torch.stack([batch.weight.sum() for batch in moved]).sum()).clamp(min=1)
        for place, batch in enumerate(moved):
            with ranks.averaging(self._model, place, len(moved)):
                with self.autocast():
                    losses = self._model(batch.fields, batch.streams, **batch.counts)
                share = torch.where(batch.weight > 0, losses * batch.weight, 0).sum() / total
                (share * ranks.world).backward()
            times = self._schedule.times(batch.streams) / TIMESTEPS  # as the module draws them
            record.add(batch.keys, losses, batch.weight, times)
            loss = loss + share.detach()
        norm = self._clip()
        loss = ranks.sum(loss)
        set_learning_rate(self.optimiser, learning_rate(settings.optimiser, number, settings.steps))
        update(self.optimiser, ~(torch.isfinite(loss) & torch.isfinite(norm)))
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(number)
        record.end(loss, norm)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """{"ema", "optimiser": {name: tensor}}, sharded where the parameters are."""
        made = {"ema": self.ema.tensors, "optimiser": optimiser_tensors(self.optimiser, self.own)}
        return {
            part: {
                name: as_part_of(tensor, self._parameter(name)) if tensor.ndim else tensor
                for name, tensor in named.items()
            }
            for part, named in made.items()
        }

    def load_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Goes on from such a state, of whole tensors. Raises ValueError where it is of other parameters."""
        ema, optimiser = (
            {
                name: part_of(tensor, self._parameter(name)) if tensor.ndim else tensor
                for name, tensor in tensors[part].items()
            }
            for part in ("ema", "optimiser")
        )
        self.ema.load(ema)
        load_optimiser_tensors(self.optimiser, self.own, optimiser)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the module has its moving averages for weights. All ranks enter and leave together.

        They change places one by one, so no second copy is made, and afterwards both are what they were.
        Averages of a schedule-free optimiser are made anew.
        """
        if self.ema.are_made:
            with self.ema.measured():
                yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, part in self.own.items():
            weights = part.detach().clone()
            part.copy_(self.ema.tensors[name])
            self.ema.tensors[name].copy_(weights)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the settings, around forward passes."""
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.ranks.device.type, torch.bfloat16)

    def _clip(self) -> Tensor:
        """Clips the gradients by their norm over all parameters and ranks; returns the norm before."""
        hand_gradients(self.trained, self.own)
        gradients = [part.grad for part in self.own.values() if part.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._sharded:
            norm = self.ranks.sum(norm.square()).sqrt()
        nn.utils.clip_grads_with_norm_(self.own.values(), self.settings.optimiser.clip_norm, norm)
        return norm

    def _parameter(self, name: str) -> Tensor:
        """Of a parameter's name, or that of a part of its optimiser state."""
        found = self.trained.get(name, self.trained.get(name.rpartition(".")[0]))
        if found is None:
            raise ValueError(f"{name} belongs to no parameter that is trained now")
        return found
