"""The processes that train together: who one is, and what they do in common."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes. With a world of 1 nothing is sent and no group is needed.

    hosts    a group for what hosts tell one another; None: the default one
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hosts: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over ranks; parameters start as rank 0 has them."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def averaging(self, model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Around a micro-batch's forward and backward: gradients travel after the last one only.

        Those of a sharded model travel each time: a whole gradient lies nowhere.
        """
        waits = not last and isinstance(model, DistributedDataParallel)
        return model.no_sync() if waits else nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over ranks, in place. Waits for the other ranks, not for the host."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def anyone(self, mine: Callable[[], bool]) -> Callable[[], bool]:
        """Starts to ask all ranks; what is returned waits for the answer, which is the same on each.

        It travels from host to host, beside the device's work. Alone, `mine` is asked when the answer is.
        """
        if self.world == 1:
            return mine
        said = torch.tensor([int(mine())])
        sent = dist.all_reduce(said, dist.ReduceOp.MAX, group=self.hosts, async_op=True)

        def answer() -> bool:
            sent.wait()
            return bool(said.item())

        return answer

    def gather(self, mine: Any) -> list[Any]:
        """Every rank's small object, by rank."""
        found = [mine] * self.world
        if self.world > 1:
            dist.all_gather_object(found, mine)
        return found


@contextmanager
def join_ranks(timeout_s: float = 600) -> Iterator[Ranks]:
    """This process among those that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), or alone.

    One GPU a process where there are GPUs (nccl), else CPUs (gloo). A rank that waits longer than
    `timeout_s` for another one stops with an error.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(device=device)
        return
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout_s))
    try:
        # A group of its own: answers must not stand in line with gradients.
        yield Ranks(rank, world, device, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()
