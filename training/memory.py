"""Memory that a step will take, from shapes alone, before anything is allocated.

The step that the loop runs is run here on fake tensors (torch's FakeTensorMode): every operation gives
shapes, dtypes and lifetimes, and no numbers. What lives at one time is summed. So autocast's copies,
activations that are computed twice, accumulation and the optimiser's own state are all counted as they
are. Not seen are scratch buffers inside a kernel, and what compiled blocks save by fusing: for them
the prediction is an upper bound.
"""

import copy
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.batch import Field, random_batch
from training.models.local_weights import on_host
from training.models.quantised import stored
from training.optimiser import update
from training.ranks import Ranks, is_sharded
from training.rates import shape_of
from training.run_settings import LoopSettings
from training.step import Step, StepRecord


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one rank's device at the fullest moment of a step."""

    weights: int
    averages: int
    optimiser: int
    batch: int
    gradients: int
    activations: int

    @property
    def peak(self) -> int:
        """All together."""
        return sum(getattr(self, part.name) for part in fields(self))

    def in_gib(self) -> dict[str, float]:
        """The parts by name, and `predicted_gib`, the peak."""
        parts = {part.name: round(getattr(self, part.name) / 2**30, 3) for part in fields(self)}
        return {"predicted_gib": round(self.peak / 2**30, 3), **parts}

    def line(self) -> str:
        """For people."""
        peak, *parts = self.in_gib().items()
        listed = ", ".join(f"{name} {gib:.2f}" for name, gib in parts)
        return f"predicted memory: {peak[1]:.2f} GiB ({listed})"


def predict_memory(
    module: nn.Module,
    blocks: Sequence[nn.Module],
    wanted: Sequence[Field],
    samples: int,
    settings: LoopSettings,
    ranks: Ranks,
) -> MemoryPlan:
    """Of a step with batches of `samples` that have the fields `wanted`.

    module    before it is sharded or wrapped; it is not changed
    blocks    its repeated layers, which are what is gathered at a time where it is sharded

    Of sharded parts the mean over ranks is counted, and what is whole at a time, in the dtype that they are
    gathered in: two blocks (all of them, where a step has several batches) and what is trained outside of
    blocks; their gradients, and the largest of these once more in float32, which is how it travels. Or all
    weights, as validation and pictures have them, where that is more. Left in is what autocast copies of
    weights in one process: a sharded module has no such copies.
    """
    sharded = is_sharded(module, settings.shard, ranks)
    in_blocks = [_bytes(p for p in block.parameters() if p.requires_grad) for block in blocks]
    alone = Ranks(device=ranks.device)
    with FakeTensorMode():
        copies: dict[int, Any] = {
            id(tensor): shape_of(tensor, ranks.device)
            for tensor in [*module.parameters(), *module.buffers(), *_on_host(module)]
        }
        step = Step(copy.deepcopy(module, copies), (), settings, alone)
        for parameter in step.trained.values():
            parameter.grad = torch.empty_like(parameter)
        update(step.optimiser, torch.zeros((), dtype=torch.bool, device=ranks.device))
        step.optimiser.zero_grad(set_to_none=True)
        batch = random_batch(wanted, samples).to(ranks.device)
        # A second micro-batch comes when all gradients are there; a third is as the second.
        batches = [batch] * min(settings.accumulate, 2)
        # Those of a schedule-free optimiser are made when they are asked for, and a step does not ask.
        averages = [] if step.ema.are_made else list(step.ema.tensors.values())
        there = [
            *step.module.parameters(), *step.module.buffers(), *_on_host(step.module),
            *averages,
            *tree_leaves(list(step.optimiser.state.values())),
            *batch.fields.values(), batch.streams, batch.weight,
        ]  # fmt: skip
        with _LiveBytes(ranks.device, step.trained.values(), there) as live:
            step(0, batches, StepRecord(alone))
        trained = _bytes(step.trained.values())
        frozen = _bytes([*step.module.parameters(), *step.module.buffers()]) - trained
        state = tree_leaves(list(step.optimiser.state.values()))
        resident = {
            "averages": _bytes(averages),
            "optimiser": _bytes(part for part in state if isinstance(part, Tensor)),
            "batch": settings.accumulate * _bytes([*batch.fields.values(), batch.streams, batch.weight]),
        }
    if sharded:
        share = {name: resident[name] // ranks.world for name in ("averages", "optimiser")}
        weights = frozen + trained // ranks.world
        halves = 2 if settings.precision == "bf16" else 1
        outside, largest = trained - sum(in_blocks), max(in_blocks, default=0)
        whole = 2 * largest + outside
        gathered = (trained if settings.accumulate > 1 else whole) // halves
        travelling = whole // halves + (max(largest, outside) if halves > 1 else 0)
        gradients = trained // ranks.world
        activations = max(live.besides + gathered + travelling, trained // halves - gradients)
        return MemoryPlan(weights, **(resident | share), gradients=gradients, activations=activations)
    if ranks.world > 1:  # DDP's buckets hold all gradients all the time
        return MemoryPlan(frozen + trained, **resident, gradients=trained, activations=live.besides)
    return MemoryPlan(
        frozen + trained, **resident, gradients=live.gradients, activations=live.peak - live.gradients
    )


class _LiveBytes(TorchDispatchMode):
    """Bytes of what operations make and nothing has let go of.

    there       tensors that are counted elsewhere. Operations return views of them, as of a weight that is
                transposed: no new bytes. Those that are let go of are taken off
    peak        at most, gradients included
    gradients   of which, at that moment
    besides     at most, gradients left out
    """

    def __init__(self, device: torch.device, trained: Any, there: Any) -> None:
        super().__init__()
        self.peak = self.gradients = self.besides = 0
        self._device = device.type
        self._bytes = self._in_gradients = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._with_gradient: set[int] = set()
        for tensor in (part for whole in there for part in stored(whole)):
            self._watch(tensor.untyped_storage())
        self._hooks = [p.register_post_accumulate_grad_hook(self._has_gradient) for p in trained]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = (part for tensor in tree_leaves(out) if isinstance(tensor, Tensor) for part in stored(tensor))
        for tensor in made:
            if tensor.device.type == self._device:
                self._count(tensor.untyped_storage())
        return out

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def _count(self, storage: torch.UntypedStorage) -> None:
        if not self._watch(storage):
            return
        self._bytes += storage.nbytes()
        self.besides = max(self.besides, self._bytes - self._in_gradients)
        if self._bytes > self.peak:
            self.peak, self.gradients = self._bytes, self._in_gradients

    def _watch(self, storage: torch.UntypedStorage) -> bool:
        """Takes its bytes off when it goes. Returns whether it was not known."""
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return False

        def gone(_: Any) -> None:
            self._bytes -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone)
        return True

    def _has_gradient(self, parameter: Tensor) -> None:
        # Its later gradients are added to the first one in place.
        if id(parameter) not in self._with_gradient:
            self._with_gradient.add(id(parameter))
            self._in_gradients += _bytes([parameter.grad])


def _bytes(tensors: Any) -> int:
    return sum(part.numel() * part.element_size() for tensor in tensors for part in stored(tensor))


def _on_host(module: nn.Module) -> list[Tensor]:
    """What is on the device only while it works, as a copy."""
    return [tensor for part in on_host(module) for tensor in (*part.parameters(), *part.buffers())]


_END = "an operation has ended"


class PeakMemory:
    """`bytes` when the work is done."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def peak_memory(
    device: torch.device, resident: Iterable[Tensor], *, scratch: bool = True
) -> Iterator[PeakMemory]:
    """Around work on a device.

    scratch   whether what a kernel takes and gives back before it ends counts, as it always does on a GPU.
              On the CPU it differs by the processor: without instructions for bf16 kernels take copies in
              float32, and spread pictures out for convolutions. Without it, compiled code runs uncompiled

    On a GPU the allocator keeps the peak. On the CPU torch's allocator reports each block to the profiler;
    what lies there before is `resident`, whose bytes are added. Memory that libraries get elsewhere
    (oneDNN's scratch, Python) is not seen.
    """
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    before = sum({t.data_ptr(): t.numel() * t.element_size() for t in resident}.values())
    ends = nullcontext() if scratch else _OperationEnds()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, ends:
        yield peak
    now = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
        if scratch or event.name() == _END:
            most = max(most, now)
    peak.bytes = before + most


class _OperationEnds(TorchDispatchMode):
    """Marks the end of every operation in what the profiler records."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        with record_function(_END):
            return out
