"""The layout in which IP-Adapter's family publishes weights, and its mapping to module paths and back.

Two groups of tensors: `image_proj.…`, the module that makes identity tokens, and
`ip_adapter.N.to_k_ip.weight`, `ip_adapter.N.to_v_ip.weight`, where N counts the UNet's attention
processors: down, up, mid; even places are self-attention and have no tensors. A tuned UNet is a third
group, `unet.…`. A `.bin` is a torch file of nested dicts; a `.safetensors` has the prefixes in its keys.
Parameters keyed by their place are what we never use ourselves: checkpoints have module paths, and only
this file knows the numbers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from shards.format.atomic_file import AtomicFile

_UNET = "denoiser.unet."
_IDENTITY = "identity."
_PROCESSOR = re.compile(r"(?P<layer>.+\.attn2)\.processor\.(?P<rest>to_[kv]_ip\.weight)")
_PARTS = ("down_blocks", "up_blocks", "mid_block")
GROUPS = ("image_proj", "ip_adapter", "unet")
# C of the 70 cross-attention layers of SDXL base: down, up, mid.
SDXL_WIDTHS = (640,) * 4 + (1280,) * 20 + (1280,) * 30 + (640,) * 6 + (1280,) * 10

Shapes = dict[str, tuple[int, ...]]


class LayoutError(ValueError):
    """A file that is not in the layout; `str()` is one line that says where it differs."""


def processor_shapes(widths: Sequence[int], context_width: int) -> Shapes:
    """Keys and shapes of the group ip_adapter for cross-attention layers of these widths, in order."""
    return {
        f"ip_adapter.{2 * place + 1}.{name}.weight": (width, context_width)
        for place, width in enumerate(widths)
        for name in ("to_k_ip", "to_v_ip")
    }


def released_names(paths: Iterable[str]) -> dict[str, str]:
    """{module path of a parameter: key in the layout}. Raises LayoutError for a path of neither group."""
    paths = list(paths)
    layers = sorted({match["layer"] for path in paths if (match := _processor(path))}, key=_place)
    number = {layer: 2 * place + 1 for place, layer in enumerate(layers)}
    names = {}
    for path in paths:
        match = _processor(path)
        if match:
            names[path] = f"ip_adapter.{number[match['layer']]}.{match['rest']}"
        elif path.startswith(_IDENTITY):
            names[path] = f"image_proj.{path.removeprefix(_IDENTITY)}"
        elif path.startswith(_UNET):
            names[path] = f"unet.{path.removeprefix(_UNET)}"
        else:
            raise LayoutError(f"{path}: the released layout has no place for it")
    return names


def write_released(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes `.safetensors` or `.bin`, whole or not at all. Raises LayoutError for another suffix."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with AtomicFile(str(path)) as file:
        if path.suffix == ".safetensors":
            file.write(save(kept))
        elif path.suffix == ".bin":
            torch.save(_nested(kept), file)
        else:
            raise LayoutError(f"{path}: the released layout is .safetensors or .bin")
        file.commit()


def read_released(path: Path) -> dict[str, Tensor]:
    """Tensors by their keys with prefixes. Loads no pickled code. Raises LayoutError."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        groups = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LayoutError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise LayoutError(f"{path}: no safetensors file: {str(error).splitlines()[0]}") from None
    except Exception as error:  # torch.load raises what it likes on a file that is not its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LayoutError(f"{path}: no torch file of tensors alone: {reason}") from None
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise LayoutError(f"{path}: must be a dict of the dicts {', '.join(GROUPS)}")
    return {f"{group}.{name}": tensor for group, named in groups.items() for name, tensor in named.items()}


def check_released(found: Mapping[str, Tensor], expected: Shapes, where: str) -> None:
    """Raises LayoutError, one line, unless keys and shapes are exactly the expected ones."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    foreign = [f"{name} is not of the layout" for name in found if name not in expected]
    wrong = [
        f"{name} is {list(found[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    faults = missing + foreign + wrong
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise LayoutError(f"{where}: {'; '.join(faults[:3])}{more}")


def copy_exactly(own: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], where: str) -> None:
    """Copies tensors into the parameters of the very same keys and shapes. Raises LayoutError."""
    check_released(tensors, {name: tuple(p.shape) for name, p in own.items()}, where)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def load_released(identity: nn.Module, unet: nn.Module, path: Path) -> None:
    """Reads a published file strictly: image_proj, ip_adapter by place, unet where it is tuned.

    Raises LayoutError.
    """
    tensors = read_released(path)
    load_group(identity, tensors, "image_proj")
    load_by_place(unet, tensors)
    if any(name.startswith("unet.") for name in tensors):
        load_group(unet, tensors, "unet")


def load_by_place(unet: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads the group ip_adapter as its publishers do: into the list of all attention processors in the
    order in which diffusers lists them, strictly. Raises LayoutError.

    It shares nothing with `released_names`, so a file that both agree on has its layers in order.
    """
    processors = [p if isinstance(p, nn.Module) else nn.Identity() for p in unet.attn_processors.values()]
    own = {
        name.removeprefix("ip_adapter."): t for name, t in tensors.items() if name.startswith("ip_adapter.")
    }
    _load_strictly(nn.ModuleList(processors), own, "ip_adapter")


def load_group(module: nn.Module, tensors: Mapping[str, Tensor], group: str) -> None:
    """Loads one group into the module that it belongs to, strictly. Raises LayoutError."""
    prefix = f"{group}."
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    _load_strictly(module, own, group)


def _load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], group: str) -> None:
    # A tuned UNet is published without its identity attention, which is a group of its own.
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if group != "unet" or ".processor." not in name
    }
    check_released(tensors, expected, group)
    module.load_state_dict(tensors, strict=group != "unet")


def _processor(path: str) -> re.Match[str] | None:
    return _PROCESSOR.fullmatch(path.removeprefix(_UNET)) if path.startswith(_UNET) else None


def _place(layer: str) -> tuple[int, ...]:
    """Where a cross-attention layer stands among all, from its path."""
    part = layer.split(".", 1)[0]
    return (_PARTS.index(part), *(int(number) for number in re.findall(r"\.(\d+)", layer)))


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, key = name.split(".", 1)
        groups.setdefault(group, {})[key] = tensor
    return groups
