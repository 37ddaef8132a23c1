"""AdamW, its learning rate over the steps, its state by parameter name, and moving averages of weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.adamw_8bit import AdamW8bit
from training.run_settings import OptimiserSettings

_STATE = ("step", "exp_avg", "exp_avg_sq")


def make_optimiser(trained: Mapping[str, nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Fused AdamW: one kernel for all parameters, and nothing read back from the device. Or its 8-bit kin."""
    decayed = [parameter for parameter in trained.values() if parameter.ndim == 2]
    others = [parameter for parameter in trained.values() if parameter.ndim != 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    some = [group for group in groups if group["params"]]
    first, second = settings.betas
    if settings.eight_bit:
        return AdamW8bit(some, lr=settings.lr, betas=(first, second), eps=settings.eps)
    return torch.optim.AdamW(some, lr=settings.lr, betas=(first, second), eps=settings.eps, fused=True)


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Of step 0 to steps − 1: rises linearly through the warm-up, then follows the schedule."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    left = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.lr * (settings.last_lr_share + (1 - settings.last_lr_share) * left)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Of all parameters, from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def skip_update(optimiser: torch.optim.Optimizer, skip: Tensor) -> None:
    """Whether the next step changes nothing: a bool on the device, which the host does not read.

    Both optimisers look at `found_inf`, through which torch's GradScaler tells its fused AdamW.
    """
    optimiser.found_inf = skip.float()


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Its whole state, in float32: {parameter name + '.' + part: tensor}. Empty before the first step."""
    return {
        f"{name}.{part}": tensor
        for name, parameter in trained.items()
        if parameter in optimiser.state
        for part, tensor in zip(_STATE, _moments(optimiser, parameter), strict=True)
    }


@torch.no_grad()
def load_optimiser_tensors(
    optimiser: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Goes on from such a state. Raises ValueError where it is that of other parameters."""
    if tensors.keys() != {f"{name}.{part}" for name in trained for part in _STATE}:
        raise ValueError("the optimiser's state is that of other parameters than are trained now")
    for name, parameter in trained.items():
        # Every part lies where its parameter lies, and as it lies: the fused kernel pairs places in memory,
        # and a checkpoint holds everything contiguous.
        count, *saved = (tensors[f"{name}.{part}"] for part in _STATE)
        count = count.to(parameter.device).clone()
        moments = [torch.empty_like(parameter, dtype=torch.float32).copy_(tensor) for tensor in saved]
        if isinstance(optimiser, AdamW8bit):
            optimiser.set_moments(parameter, count, *moments)
        else:
            optimiser.state[parameter] = dict(zip(_STATE, (count, *moments), strict=True))


def _moments(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[Tensor, ...]:
    if isinstance(optimiser, AdamW8bit):
        return optimiser.moments(parameter)
    return tuple(optimiser.state[parameter][part] for part in _STATE)


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
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
