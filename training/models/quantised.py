"""Frozen linear layers whose weights are kept in 8 or 4 bits, by torchao; gradients flow through them to what
they are given.

    int8   one scale an output; what is computed is computed in the layer's own precision, as with all three
    fp8    e4m3, one scale an output
    nf4    16 values as a normal distribution has them, a scale for each 64 weights (QLoRA, arXiv 2305.14314)

The layers stay `nn.Linear`: the tensor of the weight knows how it is kept.
"""

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from edges.extras import install_line
from training.models.local_weights import WeightsError

_BLOCK = 64  # weights of nf4 with one scale
_SCALES = 256  # of which so many have one scale again


def quantise_linears(network: nn.Module, kind: str) -> None:
    """Those that are frozen, in place; layers too small for nf4's blocks stay as they are.

    kind   int8, fp8 or nf4

    Raises WeightsError, one line, where torchao is not installed.
    """
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, NF4Tensor, quantize_
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"quantise {kind} needs the package {error.name}: {install_line('quantised')}"
        ) from None

    def is_frozen(layer: nn.Module, path: str) -> bool:
        return isinstance(layer, nn.Linear) and not layer.weight.requires_grad

    if kind != "nf4":
        quantize_(network, Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig(), is_frozen)
        return
    for path, layer in network.named_modules():
        if is_frozen(layer, path) and layer.weight.numel() % _BLOCK == 0:
            scales = math.gcd(layer.weight.numel() // _BLOCK, _SCALES)
            kept = NF4Tensor.from_tensor(layer.weight.detach(), _BLOCK, scales)
            layer.weight = nn.Parameter(kept, requires_grad=False)


def is_quantised(weight: Tensor) -> bool:
    """Whether it is kept as something else than its numbers."""
    return is_traceable_wrapper_subclass(weight)


def stored(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that it is kept as: codes and scales, or itself."""
    if not is_quantised(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        if (part := getattr(tensor, name)) is not None:
            yield from stored(part)
