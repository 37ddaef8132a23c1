"""Floating-point operations of a step, counted on the meta device: exact, and before anything runs."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from training.batch import Batch

# Dense bf16 FLOP/s that makers state, by a part of the device's name.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def step_flops(module: nn.Module, batch: Batch) -> tuple[int, int]:
    """Forward and backward FLOPs of a batch, matrix products and convolutions, as torch counts them.

    The module's own parameters are replaced by shapes for the count: nothing is computed or copied.
    """
    meta = torch.device("meta")
    state = {name: tensor.to(meta) for name, tensor in module.named_buffers()}
    for name, parameter in module.named_parameters():
        state[name] = parameter.detach().to(meta).requires_grad_(parameter.requires_grad)
    shapes = batch.to(meta)
    with torch.compiler.set_stance("force_eager"):
        with FlopCounterMode(display=False) as forward:
            loss = functional_call(module, state, (shapes.fields, shapes.streams)).mean()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s in bf16 that the maker states; None where this table does not have the device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
