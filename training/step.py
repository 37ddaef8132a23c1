"""One optimiser step over all ranks. It reads nothing back from the device."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from training.batch import Batch
from training.ema import Ema
from training.loop_settings import LoopSettings
from training.optimiser import (
    learning_rate,
    load_optimiser_tensors,
    make_optimiser,
    optimiser_tensors,
    set_learning_rate,
)
from training.ranks import Ranks
from training.sharding import as_part_of, hand_gradients, is_sharded, own_part, part_of, shard
from training.step_record import StepRecord


class Step:
    """The module among its ranks, its optimiser and its moving averages; a call is one step.

    module    on `ranks.device`. Rank 0's parameters go to all ranks here, so load them before
    blocks    the repeated layers of the module, by which it is sharded where it is

    trained   parameters by name
    own       this rank's parts of them, or themselves: what the optimiser and the averages work on
    """

    def __init__(
        self, module: nn.Module, blocks: Sequence[nn.Module], settings: LoopSettings, ranks: Ranks
    ) -> None:
        self.module, self.settings, self.ranks = module, settings, ranks
        self._sharded = is_sharded(module, settings.shard, ranks)
        self._model = shard(module, blocks, ranks) if self._sharded else ranks.wrap(module)
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.own = {name: own_part(p) for name, p in self.trained.items()}
        self.optimiser = make_optimiser(self.own, settings.optimiser)
        self.ema = Ema(self.own, settings.ema_decay)

    def __call__(self, number: int, batches: Sequence[Batch], record: StepRecord) -> None:
        """Step `number`, from 0: gradients of all micro-batches of all ranks, then one update."""
        settings, ranks = self.settings, self.ranks
        record.begin(number + 1)
        moved = [batch.to(ranks.device) for batch in batches]
        # The mean is over the samples that count of all ranks and micro-batches, not a mean of means.
        total = ranks.sum(torch.stack([batch.weight.sum() for batch in moved]).sum()).clamp(min=1)
        for place, batch in enumerate(moved):
            with ranks.averaging(self._model, last=place == len(moved) - 1):
                with self.autocast():
                    losses = self._model(batch.fields, batch.streams)
                share = torch.where(batch.weight > 0, losses * batch.weight, 0).sum() / total
                (share * ranks.world).backward()
            record.add(batch.keys, losses, batch.weight, share)
        norm = self._clip()
        set_learning_rate(self.optimiser, learning_rate(settings.optimiser, number, settings.steps))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(number)
        record.end(norm)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """{"ema", "optimiser": {name: tensor}}, sharded where the parameters are."""
        made = {"ema": self.ema.tensors, "optimiser": optimiser_tensors(self.optimiser, self.own)}
        return {
            part: {name: as_part_of(tensor, self._parameter(name)) for name, tensor in named.items()}
            for part, named in made.items()
        }

    def load_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Goes on from such a state, of whole tensors. Raises ValueError where it is of other parameters."""
        ema, optimiser = (
            {name: part_of(tensor, self._parameter(name)) for name, tensor in tensors[part].items()}
            for part in ("ema", "optimiser")
        )
        self.ema.load(ema)
        load_optimiser_tensors(self.optimiser, self.own, optimiser)

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
