"""How much memory a piece of work takes at its fullest moment, as the allocator itself counts it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

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
