"""Floating-point operations of a step, counted on the meta device: exact, and before anything runs."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.batch import Batch

# Dense bf16 FLOP/s that makers state, by a part of the device's name.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def step_flops(module: nn.Module, batch: Batch) -> tuple[int, int]:
    """Forward and backward FLOPs of a batch, matrix products and convolutions, as torch counts them.

    They are counted on a copy that has shapes and no numbers: nothing of the module is computed or changed.
    """
    meta = torch.device("meta")
    shapes, example = on_meta(module), batch.to(meta)
    with FlopCounterMode(display=False) as forward:
        loss = shapes(example.fields, example.streams).mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of shapes: the same layers, no memory, not compiled. Take it before they are sharded."""
    copies: dict[int, object] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        copies[id(tensor)] = shape_of(tensor, torch.device("meta"))
    return copy.deepcopy(module, copies)


def shape_of(tensor: Tensor, device: torch.device) -> Tensor:
    """An empty tensor like a parameter or buffer, a parameter where that is one."""
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s in bf16 that the maker states; None where this table does not have the device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
