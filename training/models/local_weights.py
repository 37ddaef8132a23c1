"""Frozen parts: from a local folder, or built from settings with random weights; and their precision.

They compute in their own dtype, whatever the loop casts automatically around them: autocast makes float32 of
norms and of what follows them, which costs memory and time and gains nothing for weights that do not move.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn


class WeightsError(ValueError):
    """Weights that cannot be had; `str()` is one line that names the folder."""


# For models of diffusers: their default asks for accelerate, and warns where it is not installed.
DIFFUSERS: Mapping[str, Any] = {"low_cpu_mem_usage": False}


def from_folder(load: Callable[..., Any], folder: str, part: str | None = None, **options: Any) -> nn.Module:
    """`load` is a `from_pretrained` of diffusers (options: `DIFFUSERS`) or transformers; its model is put on
    torch's default device. Reads safetensors only, no pickles, and never the network. Raises WeightsError."""
    place = Path(folder) / part if part else Path(folder)
    if not (place / "config.json").is_file():
        raise WeightsError(f"{place}: no config.json: not a model's folder")
    wanted = torch.get_default_device()
    try:
        # Read on the CPU, a part at a time: transformers asks for accelerate where the default is another.
        with torch.device("cpu"):
            loaded: nn.Module = load(str(place), local_files_only=True, use_safetensors=True, **options)
        return loaded.to(wanted)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "cannot be read")
        raise WeightsError(f"{place}: {reason}") from None


@contextmanager
def same_random_weights() -> Iterator[None]:
    """Inside, random weights are a function of the sizes alone, whatever device they end on: they are drawn
    on the CPU, but on `meta` nothing is.

    No checkpoint holds what is frozen: a model that has learned from random features needs the very
    same ones again.
    """
    drawn_on = "meta" if torch.get_default_device().type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(drawn_on):
        torch.manual_seed(0)
        yield


def freeze(module: nn.Module) -> nn.Module:
    """No gradients, and the layers as in use: no dropout. Returns the module."""
    return module.requires_grad_(False).eval()


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module's parameters in another dtype, in place. Buffers stay: they are constants, as a schedule or
    the mean and the deviation of pixels, and training has them in float32."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
    return module


def own_precision(device: torch.device, own: bool = True) -> AbstractContextManager[object]:
    """No autocast inside, where `own`; otherwise whatever is outside. `meta` knows no autocast."""
    if not own or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def keep_on_host(owner: nn.Module, name: str) -> None:
    """Takes a frozen part out of a module's own: it stays in host memory when the module moves, and is among
    neither its parameters nor its state. It is used within `lent`."""
    part: nn.Module = getattr(owner, name)
    if any(tensor.is_cuda for tensor in _tensors(part)):
        part.to("cpu")
    if torch.cuda.is_available():
        for tensor in _tensors(part):
            tensor.data = tensor.data.pin_memory()
    delattr(owner, name)
    owner.__dict__[name] = part


def on_host(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that `keep_on_host` took out of a module's own."""
    for owner in module.modules():
        yield from (part for part in owner.__dict__.values() if isinstance(part, nn.Module))


@contextmanager
def lent(owner: nn.Module, name: str, device: torch.device) -> Iterator[nn.Module]:
    """A part of a module; inside, one that is kept on the host has a copy of its tensors on the device."""
    part: nn.Module = getattr(owner, name)
    if name not in owner.__dict__:
        yield part
        return
    kept = [(tensor, tensor.data) for tensor in _tensors(part)]
    for tensor, data in kept:
        tensor.data = data.to(device, non_blocking=True, copy=True)
    try:
        yield part
    finally:
        for tensor, data in kept:
            tensor.data = data


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
