"""What is trained, spread over the ranks: FSDP2, and its way to whole tensors and back.

Each rank keeps its part of every trained parameter, of its gradient, its average and its optimiser state.
A block's parameters are gathered while it computes. Frozen parameters stay whole on every rank: they
have no gradients or state, and gathering them would cost traffic at each step. Checkpoints hold whole
tensors, so they know neither how many ranks there were nor whether they were sharded.
"""

from collections.abc import Mapping, Sequence

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.ranks import Ranks

# Weight, gradient, average and AdamW's two are 20 bytes a parameter, so 40 GB: half of a usual GPU.
ABOVE = 2_000_000_000


def is_sharded(module: nn.Module, wanted: bool | None, ranks: Ranks) -> bool:
    """Whether a module is to be sharded: as wanted, and by its size where nothing is. Never alone."""
    if ranks.world == 1:
        return False
    if wanted is not None:
        return wanted
    return sum(p.numel() for p in module.parameters() if p.requires_grad) > ABOVE


def shard(module: nn.Module, blocks: Sequence[nn.Module], ranks: Ranks) -> nn.Module:
    """Shards the trained parameters in place, block by block, and returns the module.

    Parameters start as rank 0 has them. They are gathered in their own dtype, so that the numbers are
    those of whole parameters.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.detach(), src=0)
    frozen = {p for p in module.parameters() if not p.requires_grad}
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for block in blocks:
        if any(p.requires_grad for p in block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=frozen)
    fully_shard(module, mesh=mesh, ignored_params=frozen)
    return module


def own_part(parameter: nn.Parameter) -> nn.Parameter:
    """This rank's part as a plain parameter over the same memory; a whole parameter is itself.

    Optimiser and averages work on these: operations on DTensors cost the host far more than they compute.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    return nn.Parameter(parameter.detach().to_local())


def hand_gradients(sharded: Mapping[str, nn.Parameter], own: Mapping[str, nn.Parameter]) -> None:
    """Gives this rank's parts the parts of the gradients, which leave the sharded parameters."""
    for name, part in own.items():
        gradient = sharded[name].grad
        if isinstance(gradient, DTensor):
            part.grad, sharded[name].grad = gradient.to_local(), None


def as_part_of(part: Tensor, like: Tensor) -> Tensor:
    """This rank's part as the sharded tensor that all parts are, laid out as `like`. Nothing is sent."""
    if not isinstance(like, DTensor) or part.ndim == 0:
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on its device; any other as it is. All ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, which every rank has, laid out and placed as `like` is."""
    placed = tensor.to(like.device)
    if not isinstance(like, DTensor) or tensor.ndim == 0:
        return placed
    laid_out = distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
    return laid_out.to_local()
