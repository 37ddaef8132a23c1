"""How fast a training step is, and what each lever gives: python benchmarks/train_step.py

Random weights and noise for data: the full size at 1024 px in bf16 on a GPU, a small one on the CPU. The
model is built once, its numbers drawn on the device; on a GPU all rows share its weights. Rows, each printed
when it is measured, and one that finds no memory says so:

    ours           the recipe's step (training/step.py) with the best settings of this device
    one lever      the same with one setting turned
    ip-adapter     beside it in the same run, a plain step as IP-Adapter's script has it: the same model, the
                   frozen parts in float32 without autocast, VAE and encoders online, nothing compiled,
                   torch's plain AdamW, the loss read after each step, missing regions computed

The median of some steps counts. On the CPU seconds are those of the processor that this process had, by its
threads: what other processes take is left out. Of a photo 3.57 regions are visible on average, as in the
corpus. MFU is the model's FLOPs, as torch counts them on the meta device, by the device's peak: the maker's
on a known GPU; otherwise that of a matrix product measured in this run, which the table says. Memory is the
allocator's peak of one step, beside what training/memory.py predicted from shapes (on a GPU of the first row
alone: a full-size trace takes most of a minute). data_wait on a GPU is of a training of this size on shards
that are written for it. A step on the CPU takes from the loader the cores that a GPU's step leaves to it, so
there it is what data_wait.py measures: the largest wait of a loop that asks for 150 samples/s at 256 px.
Where blocks are compiled (always on a GPU; --compile on a CPU, which needs a C++ compiler and minutes),
losses and gradients of one batch are compared with those of before.

The last line is JSON; in it are the ratios of benchmarks/trainer_ratios.py.
"""

import argparse
import copy
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from benchmarks.data_wait import ASKED, SIDE_PX, rows_of  # noqa: E402
from benchmarks.trainer_ratios import (  # noqa: E402
    SMALL,
    built_on,
    compiled_variants,
    dino_flops_ratio,
    drawn_batch,
    stage_a_cpu_ratio,
    write_pairs,
)
from training.batch import Batch  # noqa: E402
from training.data import open_data  # noqa: E402
from training.loop import Training  # noqa: E402
from training.memory import peak_memory, predict_memory  # noqa: E402
from training.ranks import Ranks  # noqa: E402
from training.rates import peak_flops, step_flops  # noqa: E402
from training.recipes import recipe_of  # noqa: E402
from training.recipes.recipe import Recipe  # noqa: E402
from training.run_settings import DataSettings, LoopSettings  # noqa: E402
from training.start import compile_blocks  # noqa: E402
from training.step import Step, StepRecord  # noqa: E402

READ_EVERY = 50  # steps, as in the configs


@dataclass(frozen=True)
class Levers:
    """What a row turns on."""

    precision: str
    latents: bool = True
    compiled: bool = False
    checkpointing: bool = False
    eight_bit: bool = False
    channels_last: bool = False

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Of what is not trained."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


@dataclass
class Row:
    """A contender: what makes its step, and what was measured of it."""

    name: str
    step: Callable[[], None] | None
    flops: float = 0.0  # of a sample
    predicted: int = 0
    peak: int = 0
    compiled_differs: tuple[float, float] | None = None  # loss and gradient from eager, relative
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Of a step."""
        return statistics.median(self.seconds)


class Bench:
    """What all rows share.

    module    the model with a VAE, built once, in float32 on the device
    """

    def __init__(self, device: torch.device, method: dict[str, Any], px: int, samples: int) -> None:
        self.device, self.method, self.px, self.samples = device, method, px, samples
        self.module = built_on(self.recipe(latents=False), device)
        self._flops: dict[tuple[bool, bool, bool], float] = {}

    def recipe(self, latents: bool, checkpointing: bool = False, **denoising: Any) -> Recipe:
        """The recipe of this size."""
        asked = {"cached_latents": latents, "checkpoint_activations": checkpointing, **denoising}
        return recipe_of("visual_persona", {**self.method, "denoising": asked})

    def copy(self, levers: "Levers", module: nn.Module | None = None) -> nn.Module:
        """The module, or another, with these levers; on a GPU over the same weights, whose frozen ones it
        casts."""
        if module is None:
            tensors = [*self.module.parameters(), *self.module.buffers()]
            shared: dict[int, Any] = {}
            if self.device.type == "cuda":
                shared = {id(tensor): tensor for tensor in tensors}
            module = copy.deepcopy(self.module, shared)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad and not name.startswith("identity."):
                parameter.data = parameter.data.to(levers.frozen_dtype)
        if levers.latents:
            module.denoiser.vae = None
        if levers.checkpointing:
            module.denoiser.unet.enable_gradient_checkpointing()
        layout = torch.channels_last if levers.channels_last else torch.contiguous_format
        return module.to(memory_format=layout)

    def batch(self, recipe: Recipe, *, samples: int | None = None, counted: bool = True) -> Batch:
        """Noise, on the device, in which 3.57 regions of a person are visible on average."""
        made = drawn_batch(recipe, self.px, samples or self.samples, seed=0)
        return (made if counted else replace(made, counts={})).to(self.device)

    def flops(self, module: nn.Module, batch: Batch, levers: "Levers") -> float:
        """Of a sample; traced once for what changes them."""
        key = (levers.latents, levers.checkpointing, bool(batch.counts))
        if key not in self._flops:
            self._flops[key] = sum(step_flops(module, batch)) / len(batch)
        return self._flops[key]

    def now_s(self) -> float:
        """When the device has done what it was given."""
        return now_s(self.device)


def main(arguments: list[str] | None = None) -> int:
    """All rows, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--px", type=int, default=1024 if cuda else 128)
    parser.add_argument("--batch", type=int, default=8 if cuda else 4)
    parser.add_argument("--rounds", type=int, default=10 if cuda else 5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU")
    parser.add_argument("--small", action="store_true", default=not cuda, help="the small size, on a GPU too")
    parser.add_argument("--compile", action="store_true", default=cuda, help="as a lever on the CPU too")
    parser.add_argument("--before", default="151ca1d", help="the commit that is compared with")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    began = time.perf_counter()
    bench = Bench(device, SMALL if given.small else {}, given.px, given.batch)
    built_s = now_s(device) and time.perf_counter() - began
    peak, whence = device_peak(device)
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {given.threads} threads"
    print(
        f"{name}; peak {peak / 1e12:.3f} TFLOP/s ({whence}); {given.px} px, batches of {given.batch}; "
        f"built in {built_s:.1f} s",
        flush=True,
    )

    best = Levers("bf16" if cuda else "fp32", compiled=given.compile)
    makers: dict[str, Callable[[], Row]] = {
        title: partial(levered, bench, title, levers) for title, levers in turned(best, given.compile).items()
    }
    makers[PLAIN] = partial(plain, bench)
    print(HEADING, flush=True)
    rows: dict[str, Row] = {}
    for title, make in makers.items():
        row = measured(title, make, bench, given.rounds)
        if row is not None:
            rows[title] = row
            print(line(row, rows.get(OURS), bench, peak), flush=True)
    ours, peer = rows.get(OURS), rows.get(PLAIN)
    wait = data_wait(bench, best) if cuda else wait_beside_a_pause()
    asked = f"a loop that asks for {ASKED:g} samples/s at {SIDE_PX} px"
    print(f"data_wait of {'a training on shards' if cuda else asked}: {wait:.2%}", flush=True)
    result = {
        "samples_per_s": ours and round(bench.samples / ours.median_s, 3),
        "mfu": ours and round(mfu(ours, bench, peak), 4),
        "vs_ip_adapter_style": round(peer.median_s / ours.median_s, 3) if ours and peer else None,
        "dino_flops_ratio": round(dino_flops_ratio(), 3),
        "stage_a_cpu_ratio": stage_a_cpu_ratio(given.before),
        "compiled_variants": max(compiled_variants().values()),
        "data_wait": round(wait, 4),
        "memory_gib": ours and round(ours.peak / 2**30, 4),
        "predicted_gib": ours and round(ours.predicted / 2**30, 4),
        "compiled_differs": {
            title: row.compiled_differs for title, row in rows.items() if row.compiled_differs
        },
        "failed": [title for title in makers if title not in rows],
        "device": name,
        "px": given.px,
        "batch": given.batch,
    }
    print(json.dumps(result))
    return 0


OURS, PLAIN = "ours", "plain, IP-Adapter style"


def measured(title: str, make: Callable[[], "Row"], bench: Bench, rounds: int) -> "Row | None":
    """A row, timed; None, and a line, where there is no memory for it."""
    try:
        row = make()
        assert row.step is not None
        for number in range(rounds + 1):  # the first one is not counted
            start = bench.now_s()
            row.step()
            if number:
                row.seconds.append(bench.now_s() - start)
        row.step = None
        return row
    except torch.OutOfMemoryError as error:
        print(f"{title:<28}no memory: {str(error).splitlines()[0][:120]}", flush=True)
        return None
    finally:
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def turned(best: Levers, compile_too: bool) -> dict[str, Levers]:
    """Ours, and ours with one lever turned each."""
    other = "fp32" if best.precision == "bf16" else "bf16"
    rows = {
        OURS: best,
        f"in {other}": replace(best, precision=other),
        "latents not cached": replace(best, latents=False),
        "activations computed twice": replace(best, checkpointing=True),
        "8-bit AdamW": replace(best, eight_bit=True),
        "channels last": replace(best, channels_last=True),
    }
    if compile_too:
        rows["not compiled"] = replace(best, compiled=False)
    return rows


@dataclass
class Made:
    """A step of the trainer with its batch; `flops` are those of a sample."""

    recipe: Recipe
    batch: Batch
    step: Step
    flops: float

    def __post_init__(self) -> None:
        self.record, self._number = StepRecord(self.step.ranks), 0

    def one(self) -> None:
        """The next step."""
        self.step(self._number, [self.batch], self.record)
        self._number += 1
        if self._number % READ_EVERY == 0:
            self.record.read()


def made_step(bench: Bench, levers: Levers, *, samples: int | None = None, **denoising: Any) -> Made:
    """The step of the trainer with these levers, not compiled yet; on a module of its own where settings of
    denoising change what is trained."""
    recipe = bench.recipe(levers.latents, levers.checkpointing, **denoising)
    settings = LoopSettings.model_validate(
        {
            "steps": 10**6,
            "precision": levers.precision,
            "optimiser": {"name": "adamw_8bit" if levers.eight_bit else "adamw"},
        }
    )
    module = bench.copy(levers, built_on(recipe, bench.device) if denoising else None)
    batch = bench.batch(recipe, samples=samples)
    flops = sum(step_flops(module, batch)) / len(batch) if denoising else bench.flops(module, batch, levers)
    backend = "inductor" if levers.compiled else None
    ranks = Ranks(device=bench.device)
    step = Step(module, recipe.blocks(module), settings, ranks, backend=backend)
    return Made(recipe, batch, step, flops)


def levered(bench: Bench, title: str, levers: Levers) -> Row:
    """The trainer's step, its memory, what was predicted of it, and how far compiled numbers differ."""
    made = made_step(bench, levers)
    step, batch = made.step, made.batch
    blocks = made.recipe.blocks(step.module)
    predicted = 0
    if title == OURS or bench.device.type == "cpu":
        fields = made.recipe.fields(bench.px, bench.px)
        plan = predict_memory(step.module, blocks, fields, bench.samples, step.settings, step.ranks)
        predicted = plan.peak
    differs = None
    if levers.compiled:
        eager = loss_and_gradients(step, batch)
        compile_blocks(blocks)
        differs = relative_differences(loss_and_gradients(step, batch), eager)
        del eager
    made.one()
    state = tree_leaves(list(step.optimiser.state.values()))
    resident: list[Tensor] = [*step.module.parameters(), *step.module.buffers(), *step.ema.tensors.values()]
    resident += [*batch.fields.values(), *(leaf for leaf in state if isinstance(leaf, Tensor))]
    row = Row(title, made.one, made.flops, predicted, compiled_differs=differs)
    with peak_memory(bench.device, resident) as peak:
        made.one()
    row.peak = peak.bytes
    return row


def loss_and_gradients(step: Step, batch: Batch) -> list[list[Tensor]]:
    """[losses], [gradients of what is trained]; the step's own are cleared."""
    with step.autocast():
        losses = step.module(batch.fields, batch.streams, **batch.counts)
    losses.mean().backward()
    gradients = [part.grad.clone() for part in step.own.values() if part.grad is not None]
    step.optimiser.zero_grad(set_to_none=True)
    return [[losses.detach()], gradients]


def relative_differences(found: list[list[Tensor]], expected: list[list[Tensor]]) -> tuple[float, float]:
    """By the norm over all tensors: of losses, of gradients."""

    def norm(tensors: list[Tensor]) -> float:
        return float(nn.utils.get_total_norm(tensors))

    losses, gradients = (
        norm([a - b for a, b in zip(ours, theirs, strict=True)]) / norm(theirs)
        for ours, theirs in zip(found, expected, strict=True)
    )
    return losses, gradients


def plain(bench: Bench) -> Row:
    """A step as a short script has it, around the same model."""
    levers = Levers("fp32", latents=False)
    module = bench.copy(levers)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    batch = bench.batch(bench.recipe(latents=False), counted=False)

    def one() -> None:
        loss = module(batch.fields, batch.streams).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()

    one()
    state = [part for parts in optimiser.state.values() for part in parts.values()]
    resident = [*module.parameters(), *module.buffers(), *state, *batch.fields.values()]
    row = Row(PLAIN, one, bench.flops(module, batch, levers))
    with peak_memory(bench.device, resident) as peak:
        one()
    row.peak = peak.bytes
    return row


def now_s(device: torch.device) -> float:
    """A clock that waits for a GPU; on the CPU that of the processor, by threads."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def device_peak(device: torch.device) -> tuple[float, str]:
    """FLOP/s, and where they come from."""
    known = peak_flops(device)
    if known is not None:
        return known, "bf16, as the maker states it"
    side = 8192 if device.type == "cuda" else 1536
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        spent = []
        for _ in range(4):
            start = now_s(device)
            a @ b
            spent.append(now_s(device) - start)
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / min(spent)
    best = max(found, key=lambda name: found[name])
    return found[best], f"a product of {side} × {side} matrices in {best}, measured in this run"


def data_wait(bench: Bench, levers: Levers) -> float:
    """Share of the time that a training waits for batches out of shards of drawn people."""
    recipe = bench.recipe(latents=False)
    ranks = Ranks(device=bench.device)
    steps = 12
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(f"{folder}/shards", 4 * bench.samples)
        settings = DataSettings(height_px=bench.px, width_px=bench.px, batch=bench.samples)
        data = open_data(settings, recipe, ranks, f"{folder}/shards")
        loop = LoopSettings.model_validate({"steps": steps, "precision": levers.precision, "read_every": 2})
        module = bench.copy(replace(levers, latents=False))
        if levers.compiled:
            compile_blocks(data.recipe.blocks(module))
        run = Training(
            data.recipe, module, data.batches(steps * bench.samples), loop, Path(folder, "run"), ranks
        )
        run.run()
        lines = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    waits = [line["data_wait"] for line in lines if "data_wait" in line]
    return statistics.mean(waits[1:])  # the first ones start the loader's threads


def wait_beside_a_pause() -> float:
    """The largest share of the time that a loop waits for batches beside which a GPU would compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a data thread has it
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(Path(folder), ASKED, threads=2, seconds=20)
    torch.set_num_threads(threads)
    return max(row["data_wait"] for row in rows.values())


def mfu(row: Row, bench: Bench, peak: float) -> float:
    """Model FLOPs utilisation."""
    return row.flops * bench.samples / row.median_s / peak


HEADING = (
    f"{'':<28}{'samples/s':>11}{'of ours':>9}{'MFU':>8}{'GFLOP/sample':>14}{'GiB':>9}{'predicted':>17}"
    "  compiled differs by"
)


def line(row: Row, ours: Row | None, bench: Bench, peak: float) -> str:
    """Of the table."""
    share = f"{ours.median_s / row.median_s:.2f}" if ours else ""
    foretold = f"{row.predicted / 2**30:.3f} ({row.predicted / row.peak - 1:+.1%})" if row.predicted else ""
    differs = (
        ""
        if row.compiled_differs is None
        else "{:.1e} of losses, {:.1e} of gradients".format(*row.compiled_differs)
    )
    return (
        f"{row.name:<28}{bench.samples / row.median_s:>11.2f}{share:>9}{mfu(row, bench, peak):>8.1%}"
        f"{row.flops / 1e9:>14.2f}{row.peak / 2**30:>9.3f}{foretold:>17}  {differs}"
    )


if __name__ == "__main__":
    sys.exit(main())
