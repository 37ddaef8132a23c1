"""AdamW whose two moments lie in 8 bits, block by block (Dettmers et al. 2021, arXiv 2110.02861).

Each block of a moment is divided by its largest size and each quotient becomes the nearest of 256 values.
The values are dense near 0 and reach seven orders of magnitude (dynamic quantisation, section 1.3 there):
sign, then zeros that count powers of ten, then a one, then a linear fraction of 0.1 to 1. An update
reads a moment back, moves it as AdamW does, and writes it again.

Two things are ours. No second moment becomes 0 by rounding, because an update divides by its root. And
what is read back is written as the same bits: a checkpoint can hold moments in float32, a resumed run is
the undisturbed one, and 8 bits and 32 may be changed for one another there.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BLOCK = 256  # elements with one scale
SMALLEST = 4096  # elements of a parameter, below which its moments stay in float32: they cost nothing
Table = tuple[Tensor, Tensor]
"""float32 [256], what codes stand for, and [255], where one ends and the next begins."""


class AdamW8bit(torch.optim.Optimizer):
    """As torch.optim.AdamW, with 2.03 bytes a parameter of state in place of 8.

    Matrices and convolutions are held in 8 bits; vectors, queries and what is small in float32, and updated
    by torch's fused kernel. Nothing is read back from the device.

    backend   of torch.compile, for the update of what is in 8 bits: one graph for all sizes, which goes
              through memory once where single operations go through it some forty times; None: these
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        backend: str | Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._tables: dict[torch.device, tuple[Table, Table]] = {}
        self._update: Callable[..., None] = _update
        if backend is not None:
            self._update = torch.compile(_update, fullgraph=True, dynamic=True, backend=backend)
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of all parameters that have gradients; none where `found_inf`, a scalar, is not 0."""
        for group in self.param_groups:
            small: list[nn.Parameter] = []
            numbers: dict[torch.device, tuple[Tensor, ...]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                self._begin(parameter)
                if not _in_8_bits(parameter):
                    small.append(parameter)
                    continue
                device = parameter.device
                if device not in numbers:  # of the step, as tensors: numbers that change are other graphs
                    rate = torch.full((), group["lr"], device=device)
                    found = torch.zeros((), device=device) if self.found_inf is None else self.found_inf
                    numbers[device] = (rate, found > 0)
                self._update_blocks(parameter, group, *numbers[device])
            self._update_small(small, group)

    def _begin(self, parameter: nn.Parameter) -> None:
        if parameter in self.state:
            return
        self.state[parameter] = {"step": torch.zeros((), device=parameter.device)}
        for moment in ("exp_avg", "exp_avg_sq"):
            if _in_8_bits(parameter):
                codes = torch.zeros(_blocks_of(parameter), BLOCK, dtype=torch.uint8, device=parameter.device)
                scales = torch.zeros(len(codes), 1, device=parameter.device)
                self.state[parameter][moment] = (codes, scales)
            else:
                self.state[parameter][moment] = torch.zeros_like(parameter, dtype=torch.float32)

    def _update_blocks(
        self, parameter: nn.Parameter, group: dict[str, Any], rate: Tensor, skip: Tensor
    ) -> None:
        assert parameter.grad is not None
        state, weights = self.state[parameter], parameter.detach()
        blocks = _in_blocks(weights, weights)
        self._update(
            blocks,
            _in_blocks(parameter.grad, weights),
            state["step"],
            *state["exp_avg"],
            *state["exp_avg_sq"],
            *self._tables_on(parameter.device),
            rate,
            skip,
            *group["betas"],
            group["eps"],
            group["weight_decay"],
        )
        if parameter.numel() % BLOCK:  # else its blocks lie in its own memory
            _flat(weights, weights).copy_(blocks.view(-1)[: parameter.numel()])

    def _update_small(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        if not parameters:
            return
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            [parameter.detach() for parameter in parameters],
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Steps so far, a scalar, and both moments in float32, in the parameter's shape."""
        state, read = self.state[parameter], []
        for moment, table in zip(("exp_avg", "exp_avg_sq"), self._tables_on(parameter.device), strict=True):
            if not _in_8_bits(parameter):
                read.append(state[moment])
                continue
            made = torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
            codes, scales = state[moment]
            _flat(made, made).copy_(_read(codes, scales, table).view(-1)[: made.numel()])
            read.append(made)
        return state["step"], read[0], read[1]

    @torch.no_grad()
    def set_moments(self, parameter: nn.Parameter, count: Tensor, mean: Tensor, square: Tensor) -> None:
        """Goes on from these, which are float32 in the parameter's shape."""
        self.state[parameter] = {"step": count}
        tables = self._tables_on(parameter.device)
        for name, moment, table in zip(("exp_avg", "exp_avg_sq"), (mean, square), tables, strict=True):
            if _in_8_bits(parameter):
                self.state[parameter][name] = _written(_in_blocks(moment, parameter.detach()), table)
            else:
                self.state[parameter][name] = moment.clone()

    def _tables_on(self, device: torch.device) -> tuple[Table, Table]:
        """Of the first and of the second moment."""
        if device not in self._tables:
            first, second = (dynamic_values(signed=signed).to(device) for signed in (True, False))
            self._tables[device] = (_with_edges(first), _with_edges(second))
        return self._tables[device]


def _update(
    weights: Tensor,
    gradient: Tensor,
    count: Tensor,
    codes: Tensor,
    scales: Tensor,
    square_codes: Tensor,
    square_scales: Tensor,
    table: Table,
    square_table: Table,
    rate: Tensor,
    skip: Tensor,
    first: float,
    second: float,
    eps: float,
    decay: float,
) -> None:
    """AdamW on blocks [n, 256], all in place: weights, steps so far, and the codes [n, 256] and scales [n, 1]
    of both moments. `skip`, a bool scalar: nothing changes but by rounding that changes no bit."""
    mean, square = _read(codes, scales, table), _read(square_codes, square_scales, square_table)
    now, moved = count + 1, gradient.float()
    new_mean = mean.lerp(moved, 1 - first)
    new_square = torch.addcmul(square * second, moved, moved, value=1 - second)
    size = new_square.sqrt() / (1 - second**now).sqrt() + eps
    made = weights * (1 - rate * decay) - new_mean / size * (rate / (1 - first**now))
    weights.copy_(torch.where(skip, weights, made))
    count.copy_(torch.where(skip, count, now))
    for moment, of, into in (
        (torch.where(skip, mean, new_mean), table, (codes, scales)),
        (torch.where(skip, square, new_square), square_table, (square_codes, square_scales)),
    ):
        for old, new in zip(into, _written(moment, of), strict=True):
            old.copy_(new)


def _written(blocks: Tensor, table: Table) -> tuple[Tensor, Tensor]:
    """Float32 [n, 256] → uint8 codes [n, 256], float32 scales [n, 1]."""
    scales = blocks.abs().amax(1, keepdim=True)
    shares = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.bucketize(shares, table[1], out_int32=True).to(torch.uint8), scales


def _read(codes: Tensor, scales: Tensor, table: Table) -> Tensor:
    return table[0][codes.int()] * scales


def _with_edges(values: Tensor) -> Table:
    return values, (values[1:] + values[:-1]) / 2


def _in_8_bits(parameter: Tensor) -> bool:
    return parameter.ndim in (2, 4) and parameter.numel() >= SMALLEST


def _blocks_of(parameter: Tensor) -> int:
    return -(-parameter.numel() // BLOCK)


def _flat(tensor: Tensor, like: Tensor) -> Tensor:
    """Its elements in the order in which `like` lies in memory: of `like` itself a view."""
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    return tensor.permute(order).reshape(-1)


def _in_blocks(tensor: Tensor, like: Tensor) -> Tensor:
    """[n, 256], zeros behind the last element; a view where there are none and both lie alike."""
    flat = _flat(tensor, like)
    missing = -len(flat) % BLOCK
    return (nn.functional.pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK)


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
