"""How fast a run goes: samples per second, time spent waiting for data, MFU and memory.

Floating-point operations of a step are counted on the meta device: exact, and before anything runs.
"""

import copy
import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.batch import Batch
from training.metrics import duration
from training.models.local_weights import on_host
from training.models.quantised import is_quantised
from training.ranks import Ranks

# Dense bf16 FLOP/s that makers state, by a part of the device's name; the first part that is in it counts.
PEAK_FLOPS = {
    "MI300X": 1307e12,
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
}


def step_flops(module: nn.Module, batch: Batch) -> tuple[int, int]:
    """Forward and backward FLOPs of a batch, matrix products and convolutions, as torch counts them.

    They are counted on a copy that has shapes and no numbers: nothing of the module is computed or changed.
    """
    meta = torch.device("meta")
    shapes, example = on_meta(module), batch.to(meta)
    with FlopCounterMode(display=False) as forward:
        loss = shapes(example.fields, example.streams, **example.counts).mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of shapes: the same layers, no memory, not compiled. Take it before they are sharded."""
    copies: dict[int, object] = {}
    parts = [module, *on_host(module)]
    for tensor in (tensor for part in parts for tensor in (*part.parameters(), *part.buffers())):
        copies[id(tensor)] = shape_of(tensor, torch.device("meta"))
    return copy.deepcopy(module, copies)


def shape_of(tensor: Tensor, device: torch.device) -> Tensor:
    """An empty tensor like a parameter or buffer, a parameter where that is one; kept as it is kept."""
    if is_quantised(tensor):
        names, context = tensor.__tensor_flatten__()
        parts = {name: shape_of(getattr(tensor, name), device) for name in names}
        kept = type(tensor).__tensor_unflatten__(parts, context, tensor.shape, tensor.stride())
        return nn.Parameter(kept, requires_grad=False)
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s in bf16 that the maker states; None where this table does not have the device."""
    return peak_flops_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_flops_of(name: str) -> float | None:
    """The same, by the device's name as torch has it."""
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


_Shapes = tuple[tuple[int, ...], ...]


def _sizes(batch: Batch) -> _Shapes:
    return tuple(tuple(tensor.shape) for tensor in batch.fields.values())


class StepFlops:
    """FLOPs of a sample in a step. Take it before the module is sharded.

    A trace of the full size takes many seconds. What a batch counts (`Batch.counts`) is rows that go through
    some layers, so FLOPs grow with it in a line: two of its values are traced for batches of one size.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = on_meta(module)
        self._traced: dict[_Shapes, dict[tuple[int, ...], float]] = {}

    def per_sample(self, batch: Batch) -> float:
        """Of forward and backward, for batches of these shapes and counts."""
        known = self._traced.setdefault(_sizes(batch), {})
        counts = tuple(batch.counts.values())
        if counts not in known:
            if len(counts) == 1 and len(known) > 1:
                ((a,), of_a), ((b,), of_b) = sorted(known.items())[:2]
                return of_a + (of_b - of_a) * (counts[0] - a) / (b - a)
            known[counts] = sum(step_flops(self._module, batch)) / len(batch)
        return known[counts]


class Rates:
    """`begin` before the batches of a step are asked for, `got` when they are there, `since_last` when
    the device has been waited for."""

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self._ranks = ranks
        self._peak = peak_flops(ranks.device)
        # Now, because FLOPs of a module cannot be counted any more when it is sharded.
        self._flops = StepFlops(module) if self._peak is not None else None
        self._examples: dict[_Shapes, Batch] = {}  # on the meta device: shapes, and no memory
        self.restart()

    def restart(self) -> None:
        """Forgets what has gathered."""
        self._start = perf_counter()
        self._waited = 0.0
        self._steps = 0
        self._seen: Counter[_Shapes] = Counter()

    def begin(self) -> None:
        """The host begins to wait for data."""
        self._asked = perf_counter()

    def got(self, batches: Sequence[Batch]) -> None:
        """The host has the batches of this rank's step."""
        self._waited += perf_counter() - self._asked
        self._steps += 1
        for batch in batches:
            shapes = (*_sizes(batch), tuple(batch.counts.values()))
            if shapes not in self._examples:
                self._examples[shapes] = batch.to(torch.device("meta"))
            self._seen[shapes] += len(batch)

    def since_last(self) -> dict[str, float]:
        """samples_per_s of all ranks, step_s, data_wait as a share of the time; on a GPU memory_gib, and mfu
        (model FLOPs of forward and backward by the maker's peak) where that is known. Empty where nothing
        has gathered.
        """
        spent = perf_counter() - self._start
        if not self._seen:
            return {}
        rates = {
            "samples_per_s": self._ranks.world * self._seen.total() / spent,
            "step_s": spent / self._steps,
            "data_wait": self._waited / spent,
        }
        if self._ranks.device.type == "cuda":
            rates["memory_gib"] = torch.cuda.max_memory_allocated(self._ranks.device) / 2**30
        if self._peak is not None and self._flops is not None:
            flops = sum(
                count * self._flops.per_sample(self._examples[shapes]) for shapes, count in self._seen.items()
            )
            rates["mfu"] = flops / spent / self._peak
        self.restart()
        return rates


@dataclass(frozen=True)
class TimePlan:
    """How long the steps that are left take.

    step_s   seconds of one; None where nothing is known of them
    source   what that is from: "measured", "estimate" or, with None, why it is not known
    says     the same for people
    """

    steps_left: int
    step_s: float | None
    source: str
    says: str

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        hours = None if self.step_s is None else round(self.steps_left * self.step_s / 3600, 3)
        step = None if self.step_s is None else round(self.step_s, 4)
        return {"steps_left": self.steps_left, "step_s": step, "hours": hours, "time_from": self.source}

    def line(self) -> str:
        """For people."""
        if self.step_s is None:
            return f"time: {self.says}"
        whole = duration(self.steps_left * self.step_s)
        return f"time: {whole} for {self.steps_left} steps of {self.step_s:.3g} s ({self.says})"


def plan_time(
    metrics: Path, steps_left: int, flops: Callable[[], float], gpu: str | None, mfu: float
) -> TimePlan:
    """From the rates that a run has written, else an estimate.

    metrics   metrics.jsonl of the run; may be missing
    flops     of one rank's step, forward and backward; asked where nothing was measured
    gpu       name of the GPU that it will run on
    mfu       share of that GPU's peak that the estimate assumes

    Raises ValueError, one line, for a GPU whose peak is not known.
    """
    peak = None if gpu is None else peak_flops_of(gpu)
    if gpu is not None and peak is None:
        raise ValueError(f"--gpu {gpu}: its peak is not known; known are {', '.join(PEAK_FLOPS)}")
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    found = [line["step_s"] for line in map(json.loads, lines) if "step_s" in line]
    if found:
        # The first read has compilation in it.
        rates = found[1:][-_READS:] or found
        says = f"measured: the median of {len(rates)} reads in {metrics}"
        return TimePlan(steps_left, statistics.median(rates), "measured", says)
    if peak is None:
        says = "not known: no step was measured yet; --gpu H100 estimates it"
        return TimePlan(steps_left, None, "unknown", says)
    work = flops()
    says = f"an estimate: {work / 1e12:.4g} TFLOP at {mfu:.0%} of {gpu}'s {peak / 1e12:.0f} TFLOP/s"
    return TimePlan(steps_left, work / (peak * mfu), "estimate", says)


_READS = 20  # the last of them
