"""How IP-Adapter's family numbers what it trains of a Stable Diffusion UNet, and the way back to paths.

`ip_adapter.N.to_k_ip.weight`, `ip_adapter.N.to_v_ip.weight`: N counts the UNet's attention processors: down,
up, mid; even places are self-attention and have no tensors. A tuned UNet is another group, `unet.…`.
Parameters keyed by their place are what we never use ourselves: checkpoints have module paths, and only
this file knows the numbers.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from training.released_layout import LayoutError, load_strictly

_UNET = "unet."
_PROCESSOR = re.compile(r"unet\.(?P<layer>.+\.attn2)\.processor\.(?P<rest>to_[kv]_ip\.weight)")
_PARTS = ("down_blocks", "up_blocks", "mid_block")


def released_unet_names(paths: Iterable[str]) -> dict[str, str]:
    """{path of a parameter in the denoiser: key in the layout}. Raises LayoutError for any other path."""
    paths = list(paths)
    processors = {path: match for path in paths if (match := _PROCESSOR.fullmatch(path))}
    layers = sorted({match["layer"] for match in processors.values()}, key=_place)
    number = {layer: 2 * place + 1 for place, layer in enumerate(layers)}
    names = {}
    for path in paths:
        if path in processors:
            match = processors[path]
            names[path] = f"ip_adapter.{number[match['layer']]}.{match['rest']}"
        elif path.startswith(_UNET):
            names[path] = path
        else:
            raise LayoutError(f"{path}: the released layout has no place for it")
    return names


def load_released_unet(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Reads ip_adapter by place, and unet where it is tuned, strictly. Raises LayoutError.

    The group ip_adapter is loaded as its publishers do: into the list of all attention processors in the
    order in which diffusers lists them. That shares nothing with `released_unet_names`, so a file that both
    agree on has its layers in order.
    """
    processors = [p if isinstance(p, nn.Module) else nn.Identity() for p in unet.attn_processors.values()]
    load_strictly(nn.ModuleList(processors), tensors, "ip_adapter")
    if any(name.startswith(_UNET) for name in tensors):
        # A tuned UNet is published without its identity attention, which is a group of its own.
        load_strictly(unet, tensors, "unet", besides=".processor.")


def _place(layer: str) -> tuple[int, ...]:
    """Where a cross-attention layer stands among all, from its path."""
    part = layer.split(".", 1)[0]
    return (_PARTS.index(part), *(int(number) for number in re.findall(r"\.(\d+)", layer)))
