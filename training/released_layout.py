"""The files in which methods like IP-Adapter publish weights.

Groups of tensors: `image_proj.…`, the module that makes identity tokens, and what the base names of its own
(bases/sdxl_layout.py: `ip_adapter.…`, `unet.…`). A `.bin` is a torch file of nested dicts; a `.safetensors`
has the prefixes in its keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from shards.format.atomic_file import AtomicFile

Shapes = dict[str, tuple[int, ...]]


class LayoutError(ValueError):
    """A file that is not in the layout; `str()` is one line that says where it differs."""


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
        raise LayoutError(f"{path}: must be a dict of dicts, a dict for each group")
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


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], group: str, *, besides: str | None = None
) -> None:
    """Loads one group of a file's tensors into the module that it belongs to. Raises LayoutError unless keys
    and shapes are the module's; parameters with `besides` in their names are of another group."""
    own = {name.removeprefix(f"{group}."): t for name, t in tensors.items() if name.startswith(f"{group}.")}
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if besides is None or besides not in name
    }
    check_released(own, expected, group)
    module.load_state_dict(own, strict=besides is None)


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, key = name.split(".", 1)
        groups.setdefault(group, {})[key] = tensor
    return groups
