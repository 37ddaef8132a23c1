"""The processes that train together: who one is, what they do in common, and what each holds of a module.

A module that is sharded (FSDP2) is spread over the ranks: each keeps its part of every trained parameter, of
its gradient, its average and its optimiser state. A block's parameters are gathered while it computes. Frozen
parameters stay whole on every rank: they have no gradients or state, and gathering them would cost traffic at
each step. Checkpoints hold whole tensors, so they know neither how many ranks there were nor whether they
were sharded.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from training.models.quantised import is_quantised


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

    def wrap(self, module: nn.Module, bucket_mib: int = 25) -> nn.Module:
        """The module with gradients averaged over ranks; parameters start as rank 0 has them.

        bucket_mib   of gradients that travel at a time
        """
        if self.world == 1:
            return module
        # Quantised weights, which are what their folder says on every rank, cannot be sent as they are kept.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            module, [name for name, p in module.named_parameters() if is_quantised(p)]
        )
        return DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True, bucket_cap_mb=bucket_mib
        )

    def averaging(self, model: nn.Module, place: int, batches: int) -> AbstractContextManager[object]:
        """Around forward and backward of micro-batch `place` of a step's `batches`: gradients travel after
        the last one only.

        Those of a sharded model travel each time: a whole gradient lies nowhere. Its weights are gathered for
        all of them at once: a step of one batch gathers a block when it computes, forward and backward.
        """
        last = place == batches - 1
        if isinstance(model, FSDPModule):
            for part in _sharded_parts(model):
                part.set_reshard_after_forward(batches == 1 and part is not model, recurse=False)
                part.set_reshard_after_backward(last, recurse=False)
        waits = not last and isinstance(model, DistributedDataParallel)
        return model.no_sync() if waits else nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over ranks, in place. Waits for the other ranks, not for the host."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def anyone(self, own: Callable[[], bool]) -> Callable[[], bool]:
        """Starts to ask all ranks; what is returned waits for the answer, which is the same on each.

        It travels from host to host, beside the device's work. Alone, `own` is asked when the answer is.
        """
        if self.world == 1:
            return own
        asked = torch.tensor([int(own())])
        sent = dist.all_reduce(asked, dist.ReduceOp.MAX, group=self.hosts, async_op=True)

        def answer() -> bool:
            sent.wait()
            return bool(asked.item())

        return answer

    def gather(self, own: Any) -> list[Any]:
        """Every rank's small object, by rank."""
        gathered = [own] * self.world
        if self.world > 1:
            dist.all_gather_object(gathered, own)
        return gathered


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
        # A group of its own: answers must not stand in line with gradients. A new group has torch's half an
        # hour as its limit, whatever the first one has.
        hosts = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        yield Ranks(rank, world, device, hosts)
    finally:
        dist.destroy_process_group()


class StopSignals:
    """While it is entered, the first of these signals is noted; a later one does what it always does.

    One that follows within `same_s` is the same telling: a scheduler may signal a launcher, which signals its
    ranks, and the ranks besides. To be entered in the main thread, as Python's signals ask for.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, same_s: float = 5.0) -> None:
        self._same_s = same_s
        self._name: str | None = None
        self._first = 0.0
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str | None:
        """Of the signal that came, as "SIGTERM"."""
        return self._name

    def __call__(self) -> bool:
        """Whether one has come."""
        return self._name is not None

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._name is None:
            self._name, self._first = signal.Signals(number).name, monotonic()
        elif monotonic() - self._first >= self._same_s:
            self._restore()
            # In this thread: one that is sent to the process may arrive in any, and be noted later.
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


# Weight, gradient, average and AdamW's two are 20 bytes a parameter, so 40 GB: half of a usual GPU.
ABOVE = 2_000_000_000


def is_sharded(module: nn.Module, wanted: bool | None, ranks: Ranks) -> bool:
    """Whether a module is to be sharded: as wanted, and by its size where nothing is. Never alone."""
    if ranks.world == 1:
        return False
    if wanted is not None:
        return wanted
    return sum(p.numel() for p in module.parameters() if p.requires_grad) > ABOVE


def shard(
    module: nn.Module, blocks: Sequence[nn.Module], ranks: Ranks, computes_in: torch.dtype = torch.float32
) -> nn.Module:
    """Shards the trained parameters in place, block by block, and returns the module.

    computes_in   what weights are gathered and multiplied in; their parts stay as they are, and gradients are
                  summed over ranks in float32

    Parameters start as rank 0 has them.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        if not is_quantised(tensor):
            dist.broadcast(tensor.detach(), src=0)
    frozen = {p for p in module.parameters() if not p.requires_grad}
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy()
    if computes_in != torch.float32:
        # What goes in is left to autocast: a rounded latent would be another one.
        policy = MixedPrecisionPolicy(computes_in, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        if any(p.requires_grad for p in block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=frozen, mp_policy=policy)
    fully_shard(module, mesh=mesh, ignored_params=frozen, mp_policy=policy)
    return module


def _sharded_parts(module: nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, a sharded module is whole on every rank, and any part of it can be used without another: it
    takes the memory of all its parameters, in what they compute in. Any other module is as it is. All ranks
    enter and leave together, between steps; inside, each may compute what it likes, and fail. Behind it
    weights lie in parts again, which is what a checkpoint is made of.
    """
    parts = _sharded_parts(module)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        if isinstance(module, FSDPModule):
            # FSDP2 notes every forward, without gradients too, and the next backward fetches weights ahead in
            # the order of the notes: ranks that differ in them would wait for each other.
            module.reset_iter_state()


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


def whole_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on its device; any other as it is. All ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, which every rank has, laid out and placed as `like` is."""
    placed = tensor.to(like.device)
    if not isinstance(like, DTensor) or tensor.ndim == 0:
        return placed
    laid_out = distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
    return laid_out.to_local()
