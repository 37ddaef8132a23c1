"""AdamW whose two moments lie in 8 bits, block by block (Dettmers et al. 2021, arXiv 2110.02861).

Each block of a moment is divided by its largest size and each quotient becomes the nearest of 256 values.
The values are dense near 0 and reach seven orders of magnitude (dynamic quantisation, section 1.3 there):
sign, then zeros that count powers of ten, then a one, then a linear fraction of 0.1 to 1. An update
reads a moment back, moves it as AdamW does, and writes it again.

Two things are ours. No second moment becomes 0 by rounding, because an update divides by its root. And
what is read back is written as the same bits: a checkpoint can hold moments in float32, a resumed run is
the undisturbed one, and 8 bits and 32 may be changed for one another there.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 256  # elements with one scale
SMALLEST = 4096  # elements of a parameter, below which its moments stay in float32: they cost nothing


class AdamW8bit(torch.optim.Optimizer):
    """As torch.optim.AdamW, with 2.03 bytes a parameter of state in place of 8.

    Matrices and convolutions are held in 8 bits; vectors, queries and what is small in float32. Nothing is
    read back from the device.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._values: dict[tuple[torch.device, bool], Tensor] = {}
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of all parameters that have gradients; none where `found_inf`, a scalar, is not 0."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if parameter not in self.state:
                    nothing = torch.zeros_like(parameter, dtype=torch.float32)
                    zero = torch.zeros((), device=parameter.device)
                    self.set_moments(parameter, zero, nothing, nothing)
                before = self.moments(parameter)
                count, mean, square = before
                count = count + 1
                mean = mean.lerp(gradient.float(), 1 - first)
                square = torch.addcmul(square * second, gradient.float(), gradient.float(), value=1 - second)
                size = square.sqrt() / (1 - second**count).sqrt() + group["eps"]
                made = parameter * (1 - group["lr"] * group["weight_decay"])
                made -= mean / size * (group["lr"] / (1 - first**count))
                if self.found_inf is not None:
                    made, count, mean, square = (
                        torch.where(self.found_inf > 0, old, new)
                        for old, new in zip((parameter, *before), (made, count, mean, square), strict=True)
                    )
                parameter.copy_(made)
                self.set_moments(parameter, count, mean, square)

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Steps so far, a scalar, and both moments in float32, in the parameter's shape."""
        state = self.state[parameter]
        return (
            state["step"],
            self._read(state["exp_avg"], parameter, signed=True),
            self._read(state["exp_avg_sq"], parameter, signed=False),
        )

    def set_moments(self, parameter: nn.Parameter, count: Tensor, mean: Tensor, square: Tensor) -> None:
        """Goes on from these, which are float32 in the parameter's shape."""
        self.state[parameter] = {
            "step": count,
            "exp_avg": self._written(mean, signed=True),
            "exp_avg_sq": self._written(square, signed=False),
        }

    def _written(self, moment: Tensor, *, signed: bool) -> tuple[Tensor, ...]:
        """(uint8 codes, float32 scales of blocks), or (the moment,) where it stays as it is."""
        if moment.ndim not in (2, 4) or moment.numel() < SMALLEST:
            return (moment.clone(),)
        flat = moment.flatten()
        blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        scales = blocks.abs().amax(1, keepdim=True)
        values = self._table(moment.device, signed)
        shares = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)
        codes = torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True)
        return codes.to(torch.uint8), scales

    def _read(self, written: tuple[Tensor, ...], parameter: nn.Parameter, *, signed: bool) -> Tensor:
        if len(written) == 1:
            return written[0]
        codes, scales = written
        values = self._table(codes.device, signed)[codes.int()]
        return (values * scales).flatten()[: parameter.numel()].view(parameter.shape)

    def _table(self, device: torch.device, signed: bool) -> Tensor:
        if (device, signed) not in self._values:
            self._values[device, signed] = dynamic_values(signed=signed).to(device)
        return self._values[device, signed]


def dynamic_values(*, signed: bool) -> Tensor:
    """float32 [256] in rising order, from −1 or above 0 to 1: what a code stands for.

    1 and −1 are among them, so that the largest number of a block is kept and what is read back is
    written as it was. There is no 0: the smallest sizes are below 10^-6 of the block's largest.
    """
    bits = 6 if signed else 7
    positive = [1.0]
    for power in range(7):
        parts = 2 ** (bits - power)
        positive += [(0.1 + 0.9 * (part + 0.5) / parts) * 10.0**-power for part in range(parts)]
    others = [-value for value in positive] if signed else [min(positive) / 10]
    return torch.tensor(sorted([*others, *positive]), dtype=torch.float32)
