"""The moving average of trained parameters, which generates better than the last step's."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Averages beside the parameters, in float32 on their device.

    The decay grows as (1 + n) / (10 + n) up to `decay`, so that the random start is soon forgotten.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], decay: float) -> None:
        self._decay = decay
        self._parameters = list(trained.values())
        self.tensors = {name: p.detach().float().clone() for name, p in trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step 0, 1, …"""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from these. Raises ValueError where they are of other parameters."""
        if tensors.keys() != self.tensors.keys():
            raise ValueError("the averages are those of other parameters than are trained now")
        for name, mine in self.tensors.items():
            mine.copy_(tensors[name])
