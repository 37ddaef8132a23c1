"""LoRA (arXiv 2106.09685) and DoRA (arXiv 2402.09353) on the linear layers of a frozen network.

    LoRA   y = (W + s·B·A)·x + b                                  s = alpha / rank
    DoRA   y = m ∘ (W + s·B·A) / ‖W + s·B·A‖ · x + b              m and the norm: one number an output

B begins as zeros and m as ‖W‖, so a network with them begins as it is without. The layers are ours and not
PEFT's: those compute in float32 whatever the network computes in, which doubles the activations of a bf16
base, and make all of B·A at each forward pass to know the norm. Names, shapes and start are PEFT's, so what
is trained here is read there (`peft_tensors`).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from training.method_settings import LoraSettings
from training.models.quantised import is_quantised

PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")


class LoraLinear(nn.Module):
    """A linear layer, frozen and of any kind that is an `nn.Linear`, with what is trained besides.

    The change is kept in float32 and computes in the precision of what it is given.
    """

    def __init__(self, base_layer: nn.Linear, settings: LoraSettings) -> None:
        super().__init__()
        self.base_layer, self.scale = base_layer, settings.scale
        with torch.device(base_layer.weight.device):
            self.lora_A = nn.Linear(base_layer.in_features, settings.rank, bias=False, dtype=torch.float32)
            self.lora_B = nn.Linear(settings.rank, base_layer.out_features, bias=False, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.lora_magnitude_vector: nn.Parameter | None = None
        if settings.dora:
            square = self._rows(torch.float32).square().sum(1)
            self.register_buffer("base_square", square, persistent=False)
            self.lora_magnitude_vector = nn.Parameter(square.sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        out = self.base_layer(x)
        first, second = (part.weight.to(out.dtype) for part in (self.lora_A, self.lora_B))
        change = self.scale * linear(linear(x.to(out.dtype), first), second)
        if self.lora_magnitude_vector is None:
            return out + change
        factor = (self.lora_magnitude_vector / self._norm()).to(out.dtype)
        if (bias := self.base_layer.bias) is None:
            return (out + change) * factor
        return (out - bias + change) * factor + bias

    def merged_weight(self) -> Tensor:
        """float32 [out, in]: that of the layer that does the same alone."""
        weight = self._rows(torch.float32)
        weight = weight + self.scale * (self.lora_B.weight @ self.lora_A.weight)
        if self.lora_magnitude_vector is None:
            return weight
        return weight * (self.lora_magnitude_vector / weight.norm(dim=1))[:, None]

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """[out]: ‖W + s·B·A‖ of each row, without making B·A. DoRA takes it as a constant (section 4.3)."""
        first, second = self.lora_A.weight, self.lora_B.weight
        crossed = self._times(first).float()  # W·Aᵀ [out, rank]
        square = self.base_square + 2 * self.scale * (second * crossed).sum(1)
        square = square + self.scale**2 * (second @ (first @ first.mT) * second).sum(1)
        return square.clamp(min=torch.finfo(torch.float32).tiny).sqrt()

    @torch.no_grad()
    def _rows(self, dtype: torch.dtype) -> Tensor:
        """[out, in]: W, whatever it is kept as."""
        weight = self.base_layer.weight
        if not is_quantised(weight):
            return weight.to(dtype)
        eye = torch.eye(self.base_layer.in_features, device=weight.device)
        return self._times(eye).to(dtype)

    def _times(self, rows: Tensor) -> Tensor:
        """[n, in] → W · rowsᵀ [out, n]."""
        layer = self.base_layer
        made = layer(rows.to(layer.weight.dtype))
        return (made if layer.bias is None else made - layer.bias).mT


def install_lora(network: nn.Module, settings: LoraSettings) -> list[str]:
    """Gives the linear layers that the targets name a change that is trained, in place; returns their paths.

    Raises ValueError, one line, for a target that names no linear layer.
    """
    found: dict[str, nn.Linear] = {}
    for target in settings.targets:
        named = [
            (path, layer) for path, layer in network.named_modules() if f".{path}".endswith(f".{target}")
        ]
        linear_ones = {path: layer for path, layer in named if isinstance(layer, nn.Linear)}
        if not linear_ones:
            what = f"names a {type(named[0][1]).__name__}, no linear layer" if named else "names no layer"
            raise ValueError(f"lora.targets: {target} {what}")
        found.update(linear_ones)
    for path, layer in found.items():
        _put(network, path, LoraLinear(layer, settings))
    return list(found)


def is_lora(path: str) -> bool:
    """Whether a parameter's path is that of a part of LoRA."""
    return path.endswith(tuple(f".{part}" for part in PARTS))


def peft_tensors(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """{path: tensor} of LoRA → the same under PEFT's names, for which alpha is the rank: the scale lies
    within B. `load_lora_weights` of diffusers reads them behind `unet.` or `transformer.`."""
    return {path: t * scale if path.endswith(PARTS[1]) else t for path, t in tensors.items()}


def own_tensors(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The way back from `peft_tensors`."""
    return peft_tensors(tensors, 1 / scale)


@contextmanager
def merged(network: nn.Module) -> Iterator[None]:
    """Inside, layers with LoRA are plain linear layers that do the same alone, under the paths that the
    network has without LoRA; behind it everything is as before, to the bit.

    Raises ValueError, one line, for quantised layers, whose weights are not those of the base.
    """
    layers = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, LoraLinear)]
    try:
        for path, layer in layers:
            _put(network, path, _plain(layer))
        yield
    finally:
        for path, layer in layers:
            _put(network, path, layer)


@torch.no_grad()
def _plain(layer: LoraLinear) -> nn.Linear:
    base = layer.base_layer
    if is_quantised(base.weight):
        raise ValueError("LoRA is merged into the weights that a base has, not into quantised ones")
    weight, has_bias = layer.merged_weight().to(base.weight.dtype), base.bias is not None
    plain = nn.Linear(base.in_features, base.out_features, has_bias, device="meta").requires_grad_(False)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if has_bias:
        plain.bias = base.bias
    return plain


def _put(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)
