"""Loss on samples that are not trained on, at the same timesteps and noise each time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.batch import Batch
from training.ranks import Ranks


@torch.no_grad()
def validation_loss(module: nn.Module, batches: Sequence[Batch], ranks: Ranks) -> Tensor:
    """Weighted mean over the batches of all ranks, a scalar on the device; nothing is dropped.

    Timesteps and noise belong to the samples' streams. So the batches are made once, with one seed and
    one epoch, and two losses differ by the weights alone.
    """
    sums = torch.zeros(2, device=ranks.device)
    for batch in batches:
        moved = batch.to(ranks.device)
        losses = module(moved.fields, moved.streams, drop=False)
        sums += torch.stack([(losses * moved.weight).sum(), moved.weight.sum()])
    total = ranks.sum(sums)
    return total[0] / total[1].clamp(min=1e-6)
