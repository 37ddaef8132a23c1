"""How fast a training step is, and what each lever gives: python benchmarks/train_step.py

Random weights and noise for data: the full size at 1024 px in bf16 on a GPU, a small one on the CPU. Rows:

    ours           the recipe's step (training/step.py) with the best settings of this device
    one lever      the same with one setting turned
    ip-adapter     beside it in the same run, a plain step as IP-Adapter's script has it: the same model, the
                   frozen parts in float32 without autocast, VAE and encoders online, nothing compiled,
                   torch's plain AdamW, the loss read after each step

Steps of all rows follow one another in rounds, and the median counts. On the CPU seconds are those of the
processor that this process had, by its threads: what other processes take is left out.
MFU is the model's FLOPs, as torch counts them on the meta device, by the device's peak: the maker's on a
known GPU; otherwise that of a matrix product measured in this run, which the table says. Memory is the
allocator's peak of one step, beside what training/memory.py predicted from shapes. data_wait on a GPU is of
a training of this size on shards that are written for it. A step on the CPU takes from the loader the cores
that a GPU's step leaves to it, so there it is what data_wait.py measures: the largest wait of a loop that
asks for 150 samples/s at 256 px. Where blocks are compiled (always on a GPU; --compile on a CPU, which needs
a C++ compiler and minutes), losses and gradients of one batch are compared with those of
before, in each precision. The last line is JSON.
"""

import argparse
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
from benchmarks.reading_samples import samples  # noqa: E402
from shards.format.dataset_writer import DatasetWriter  # noqa: E402
from training.batch import Batch, random_batch  # noqa: E402
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

_TEXT = {"width": 64, "depth": 2, "heads": 2, "mlp_width": 128, "projection": 64, "vocabulary": 4096}
SMALL: dict[str, Any] = {
    "sdxl": {
        "channels": [64, 96],
        "transformer_depths": [1, 1],
        "head_width": 32,
        "layers_per_block": 1,
        "norm_groups": 16,
        "time_id_width": 32,
        "text": _TEXT,
        "text_2": {**_TEXT, "activation": "gelu"},
        "vae_channels": [16, 16, 32, 32],
        "vae_layers": 1,
    },
    "dino": {"width": 96, "depth": 4, "heads": 3, "trained_px": 112, "crop_px": 112},
    "decoder": {"queries": 16, "width": 128, "feature_width": 96, "depth": 2, "heads": 4, "mlp_width": 256},
}
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


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    device: torch.device
    method: dict[str, Any]
    px: int
    samples: int

    def recipe(self, latents: bool, checkpointing: bool = False) -> Recipe:
        """The recipe of this size."""
        denoising = {"cached_latents": latents, "checkpoint_activations": checkpointing}
        return recipe_of("visual_persona", {**self.method, "denoising": denoising})

    def batch(self, recipe: Recipe) -> Batch:
        """Noise, on the device."""
        return random_batch(recipe.fields(self.px, self.px), self.samples).to(self.device)

    def now_s(self) -> float:
        """When the device has done what it was given."""
        return now_s(self.device)


def main() -> int:
    """All rows, one after the other in rounds."""
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
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    bench = Bench(device, SMALL if given.small else {}, given.px, given.batch)
    peak, whence = device_peak(device)
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {given.threads} threads"
    print(
        f"{name}; peak {peak / 1e12:.3f} TFLOP/s ({whence}); {given.px} px, batches of {given.batch}",
        flush=True,
    )

    best = Levers("bf16" if cuda else "fp32", compiled=given.compile)
    makers: list[Callable[[], Row]] = [
        partial(levered, bench, title, levers) for title, levers in turned(best, given.compile).items()
    ]
    makers.append(partial(plain, bench))
    # On the CPU all rows are small, and take turns; a GPU holds one at a time, and has no other load.
    groups = [[maker] for maker in makers] if cuda else [makers]
    rows: list[Row] = []
    for group in groups:
        made = [maker() for maker in group]
        time_in_rounds(made, bench, given.rounds)
        for row in made:
            row.step = None
        rows += made
        gc.collect()
    print_table(rows, bench, peak)
    ours, peer = rows[0], rows[-1]
    if cuda:
        wait = data_wait(bench, best)
        print(f"data_wait of a training on shards: {wait:.2%}")
    else:
        wait = wait_beside_a_pause()
        print(f"data_wait of a loop that asks for {ASKED:g} samples/s at {SIDE_PX} px: {wait:.2%}")
    differs = {row.name: row.compiled_differs for row in rows if row.compiled_differs is not None}
    for title, (of_losses, of_gradient) in differs.items():
        print(
            f"{title}: compiled differs from eager by {of_losses:.1e} of the losses, "
            f"{of_gradient:.1e} of the gradient"
        )
    result = {
        "samples_per_s": round(bench.samples / ours.median_s, 3),
        "mfu": round(mfu(ours, bench, peak), 4),
        "vs_ip_adapter_style": round(peer.median_s / ours.median_s, 3),
        "data_wait": round(wait, 4),
        "memory_gib": round(ours.peak / 2**30, 4),
        "predicted_gib": round(ours.predicted / 2**30, 4),
        "compiled_differs": differs,
        "device": name,
        "px": given.px,
        "batch": given.batch,
    }
    print(json.dumps(result))
    return 0


def turned(best: Levers, compile_too: bool) -> dict[str, Levers]:
    """Ours, and ours with one lever turned each."""
    other = "fp32" if best.precision == "bf16" else "bf16"
    rows = {
        "ours": best,
        f"in {other}": replace(best, precision=other),
        "latents not cached": replace(best, latents=False),
        "activations computed twice": replace(best, checkpointing=True),
        "8-bit AdamW": replace(best, eight_bit=True),
        "channels last": replace(best, channels_last=True),
    }
    if compile_too:
        rows["not compiled"] = replace(best, compiled=False)
    return rows


def levered(bench: Bench, title: str, levers: Levers) -> Row:
    """The step of the trainer with these levers."""
    recipe = bench.recipe(levers.latents, levers.checkpointing)
    settings = LoopSettings.model_validate(
        {
            "steps": 10**6,
            "precision": levers.precision,
            "optimiser": {"name": "adamw_8bit" if levers.eight_bit else "adamw"},
        }
    )
    ranks = Ranks(device=bench.device)
    torch.manual_seed(0)
    module = recipe.build(settings.frozen_dtype).to(bench.device)
    if levers.channels_last:
        module.to(memory_format=torch.channels_last)
    batch = bench.batch(recipe)
    flops = sum(step_flops(module, batch)) / bench.samples
    blocks = recipe.blocks(module)
    plan = predict_memory(module, blocks, recipe.fields(bench.px, bench.px), bench.samples, settings, ranks)
    step, record = Step(module, blocks, settings, ranks), StepRecord(ranks)
    differs = None
    if levers.compiled:
        eager = loss_and_gradients(step, batch)
        compile_blocks(blocks)
        differs = relative_differences(loss_and_gradients(step, batch), eager)
        del eager
    number = 0

    def one() -> None:
        nonlocal number
        step(number, [batch], record)
        number += 1
        if number % READ_EVERY == 0:
            record.read()

    one()
    state = tree_leaves(list(step.optimiser.state.values()))
    resident: list[Tensor] = [*module.parameters(), *module.buffers(), *step.ema.tensors.values()]
    resident += [*batch.fields.values(), *(leaf for leaf in state if isinstance(leaf, Tensor))]
    row = Row(title, one, flops, plan.peak, compiled_differs=differs)
    with peak_memory(bench.device, resident) as peak:
        one()
    row.peak = peak.bytes
    return row


def loss_and_gradients(step: Step, batch: Batch) -> list[list[Tensor]]:
    """[losses], [gradients of what is trained]; the step's own are cleared."""
    with step.autocast():
        losses = step.module(batch.fields, batch.streams)
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
    recipe = bench.recipe(latents=False)
    torch.manual_seed(0)
    module = recipe.build(torch.float32).to(bench.device)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    batch = bench.batch(recipe)

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
    row = Row("plain, IP-Adapter style", one, sum(step_flops(module, batch)) / bench.samples)
    with peak_memory(bench.device, resident) as peak:
        one()
    row.peak = peak.bytes
    return row


def time_in_rounds(rows: list[Row], bench: Bench, rounds: int) -> None:
    """One step of each row a round, behind one that is not counted."""
    for number in range(rounds + 1):
        for row in rows:
            assert row.step is not None
            start = bench.now_s()
            row.step()
            if number:
                row.seconds.append(bench.now_s() - start)


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
        _write_pairs(f"{folder}/shards", 4 * bench.samples)
        settings = DataSettings(height_px=bench.px, width_px=bench.px, batch=bench.samples)
        data = open_data(settings, recipe, ranks, f"{folder}/shards")
        loop = LoopSettings.model_validate({"steps": steps, "precision": levers.precision, "read_every": 2})
        module = data.recipe.build(loop.frozen_dtype).to(bench.device)
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


def _write_pairs(folder: str, groups: int) -> None:
    """Groups of two photos of 512 × 512 px."""
    photos = samples(2 * groups)
    with DatasetWriter(folder) as writer:
        for number in range(groups):
            members: dict[str, bytes] = {}
            for place in range(2):
                _, drawn = next(photos)
                members |= {f"{place:03d}{suffix[3:]}": data for suffix, data in drawn.items()}
            writer.add(f"{number:016x}-a", members)
        writer.close("noise", {"pipeline": "none"})


def mfu(row: Row, bench: Bench, peak: float) -> float:
    """Model FLOPs utilisation."""
    return row.flops * bench.samples / row.median_s / peak


def print_table(rows: list[Row], bench: Bench, peak: float) -> None:
    """A line for each row."""
    print(f"{'':<28}{'samples/s':>11}{'of ours':>9}{'MFU':>8}{'GFLOP/sample':>14}{'GiB':>9}{'predicted':>17}")
    for row in rows:
        share = rows[0].median_s / row.median_s
        off = row.predicted / row.peak - 1
        foretold = f"{row.predicted / 2**30:.3f} ({off:+.1%})" if row.predicted else ""
        print(
            f"{row.name:<28}{bench.samples / row.median_s:>11.2f}{share:>9.2f}{mfu(row, bench, peak):>8.1%}"
            f"{row.flops / 1e9:>14.2f}{row.peak / 2**30:>9.3f}{foretold:>17}"
        )


if __name__ == "__main__":
    sys.exit(main())
