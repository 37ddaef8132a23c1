"""How much memory a piece of work takes at its fullest moment, as the allocator itself counts it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


class PeakMemory:
    """`bytes` when the work is done."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def peak_memory(device: torch.device, resident: Iterable[Tensor]) -> Iterator[PeakMemory]:
    """Around work on a device.

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
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield peak
    now = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    peak.bytes = before + most
