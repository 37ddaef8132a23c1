"""What only a GPU can say of the trainer, in one call of nine minutes: python benchmarks/gpu_check.py

Sections, each printed when it is done, as a line of JSON. One that fails, or finds no memory, says so and
costs no other; one for which less time is left than it needs is passed over.

    eager      samples/s, MFU, memory beside the prediction, and how long the host is busy in a step
    waits      whether a step reads something back from the device: torch's sync debugging raises there
    kernels    names of the kernels of attention, and the ten that take most of a step
    compiled   as eager; seconds of the first step, of one of another size, of the first validation
    resumed    a training of the demo's recipe, whole and in two parts: its losses, and whether both agree
    others     cudnn.benchmark, channels last, LoRA, 8-bit moments, activations computed twice, VAE online,
               the UNet tuned: each as eager, on top of the compiled step where it has to do with it

Random weights at full size, 1024 px, batches of 8, as benchmarks/train_step.py builds them: once, on the
device. --small does the same on the small size, on a CPU within a minute; what a CPU cannot say is null
there. The last line is JSON with all sections; the exit code is 1 where one failed.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from benchmarks.train_step import Bench, Levers, Made, device_peak, made_step  # noqa: E402
from benchmarks.trainer_ratios import SMALL, drawn_batch, write_pairs  # noqa: E402
from training.loop import validation_loss  # noqa: E402
from training.memory import predict_memory  # noqa: E402
from training.ranks import Ranks  # noqa: E402
from training.run_settings import read_settings  # noqa: E402
from training.start import compile_blocks, prepare  # noqa: E402

Section = Callable[[], dict[str, Any]]


class Check:
    """The sections, on one device and within a budget of seconds."""

    def __init__(self, *, small: bool, budget_s: float) -> None:
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        self.small, self._ends = small, time.perf_counter() + budget_s
        px, batch = (64, 2) if small else (1024, 8)
        self.bench = Bench(self.device, SMALL if small else {}, px, batch)
        self.peak, _ = device_peak(self.device) if not small else (1e12, "")
        self.found: dict[str, dict[str, Any]] = {}

    def run(self, name: str, section: Section, needs_s: float) -> None:
        """One section; its result or its error is printed and kept."""
        left, began = self._ends - time.perf_counter(), time.perf_counter()
        if left < needs_s:
            found: dict[str, Any] = {"passed_over": f"{left:.0f} s are left, {needs_s:.0f} are needed"}
        else:
            try:
                found = section()
            except Exception as error:  # whatever a section does, the others are worth their time
                found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            found["took_s"] = round(time.perf_counter() - began, 1)
        self.found[name] = found
        print(f"{name}: {json.dumps(found)}", flush=True)
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def step(self, levers: Levers, *, batch: int | None = None, **denoising: Any) -> Made:
        """The trainer's step with these levers."""
        made = made_step(self.bench, levers, samples=batch, **denoising)
        if levers.compiled:
            backend = "eager" if self.small else "inductor"
            compile_blocks(made.recipe.blocks(made.step.module), backend, sizes=2)
        return made

    def timed(self, made: Made, steps: int = 6) -> dict[str, Any]:
        """Seconds of the first step and of later ones, and what they say."""
        began = self.bench.now_s()
        made.one()
        first_s = self.bench.now_s() - began
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        began, host_s = self.bench.now_s(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            made.one()
            host_s += time.perf_counter() - asked
        step_s = (self.bench.now_s() - began) / steps
        samples = len(made.batch)
        return {
            "step_s": round(step_s, 4),
            "host_s": round(host_s / steps, 4) if self.cuda else None,
            "first_step_s": round(first_s, 1),
            "samples_per_s": round(samples / step_s, 2),
            "mfu": round(made.flops * samples / step_s / self.peak, 4) if not self.small else None,
            "memory_gib": self._gib(torch.cuda.max_memory_allocated) if self.cuda else None,
            "reserved_gib": self._gib(torch.cuda.max_memory_reserved) if self.cuda else None,
        }

    def _gib(self, of: Callable[[], int]) -> float:
        return round(of() / 2**30, 2)

    def eager(self) -> dict[str, Any]:
        """With cached latents; the prediction is of the same step."""
        made = self.step(Levers("bf16"))
        found = self.timed(made)
        fields = made.recipe.fields(self.bench.px, self.bench.px)
        plan = predict_memory(
            made.step.module, (), fields, self.bench.samples, made.step.settings, Ranks(device=self.device)
        )
        return {**found, "predicted_gib": round(plan.peak / 2**30, 2)}

    def waits(self) -> dict[str, Any]:
        """Raises, with the place, where a step waits for the device."""
        made = self.step(Levers("bf16"))
        made.one()
        if not self.cuda:
            return {"waits": None}
        torch.cuda.set_sync_debug_mode("error")
        try:
            made.one()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return {"waits": False}

    def kernels(self) -> dict[str, Any]:
        """Of one step."""
        made = self.step(Levers("bf16"))
        made.one()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
        with profile(activities=activities) as recorded:
            made.one()
            self.bench.now_s()
        events = recorded.key_averages()
        spent = {
            event.key[:90]: event.self_device_time_total or event.self_cpu_time_total for event in events
        }
        named = ("flash", "fmha", "cudnn", "efficient_attention", "attention")
        most = sorted(spent, key=lambda name: -spent[name])[:10]
        return {
            "attention": sorted(name for name in spent if any(word in name.lower() for word in named)),
            "most_ms": {name: round(spent[name] / 1000, 2) for name in most},
        }

    def compiled(self) -> dict[str, Any]:
        """Blocks compiled as for several sizes of targets."""
        made = self.step(Levers("bf16", compiled=True))
        found = self.timed(made)
        px = self.bench.px
        other = drawn_batch(made.recipe, (px * 2, px) if self.small else (1152, 896), len(made.batch), seed=1)
        began = self.bench.now_s()
        made.step(1, [other.to(self.device)], made.record)
        other_s = self.bench.now_s() - began
        with made.step.autocast():
            validation_loss(made.step.module, [made.batch], Ranks(device=self.device)).item()
        validated_s = self.bench.now_s() - began - other_s
        return {**found, "other_size_s": round(other_s, 1), "validated_s": round(validated_s, 1)}

    def resumed(self) -> dict[str, Any]:
        """The demo's config from shards of drawn noise, through the same doors as `persona train`."""
        steps, half = (2, 1) if self.small else (200, 100)
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(f"{folder}/shards", 24)
            curves = {
                "whole": self._train(folder, "whole", [steps]),
                "parts": self._train(folder, "parts", [half, steps]),
            }
        first, last = (curves["whole"][part] for part in (slice(half), slice(half, None)))
        return {
            "loss_first_half": round(sum(first) / len(first), 4),
            "loss_second_half": round(sum(last) / len(last), 4),
            "identical": curves["whole"] == curves["parts"],
            "largest_difference": max(abs(a - b) for a, b in zip(*curves.values(), strict=True)),
        }

    def _train(self, folder: str, name: str, ends: list[int]) -> list[float]:
        """Trains to each of these steps, from where it was; the losses. The learning rate is constant: it is
        a function of how many steps there are."""
        out = Path(folder, name)
        for steps in ends:
            changes: dict[str, Any] = {"loop.steps": steps, "loop.read_every": 1, "data.batch": 4}
            changes |= {"loop.optimiser.schedule": "constant", "loop.pictures_every": None}
            settings = read_settings("visual_persona_demo", changes)
            prepare(settings, f"{folder}/shards", out, Ranks(device=self.device)).training().run()
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    def lever(self, levers: Levers, **changed: Any) -> dict[str, Any]:
        """A step with something turned."""
        return self.timed(self.step(levers, **changed), steps=4)

    def cudnn_benchmark(self) -> dict[str, Any]:
        """cuDNN measures its algorithms for each shape, and takes the fastest."""
        torch.backends.cudnn.benchmark = True
        try:
            return self.lever(self.best)
        finally:
            torch.backends.cudnn.benchmark = False

    @property
    def best(self) -> Levers:
        """Compiled; on a CPU, which has no time for it, not."""
        return Levers("bf16", compiled=not self.small)

    def sections(self) -> dict[str, tuple[Section, float]]:
        """By name: what is done, and the seconds that it needs at full size."""
        eager, lever = Levers("bf16"), self.lever
        tuned = partial(lever, eager, batch=2, tune_unet=True)
        return {
            "eager": (self.eager, 60),
            "waits": (self.waits, 15),
            "kernels": (self.kernels, 20),
            "compiled": (self.compiled, 150),
            "resumed": (self.resumed, 60),
            "cudnn.benchmark": (self.cudnn_benchmark, 40),
            "channels last": (partial(lever, replace(self.best, channels_last=True)), 40),
            "LoRA": (partial(lever, eager, lora={"rank": 16}), 25),
            "8-bit moments": (partial(lever, replace(self.best, eight_bit=True)), 45),
            "activations twice": (partial(lever, replace(self.best, checkpointing=True)), 40),
            "VAE online": (partial(lever, replace(eager, latents=False)), 25),
            "UNet tuned": (tuned, 25),
        }


def main(arguments: list[str] | None = None) -> int:
    """All sections, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="the small size; all that a CPU has time for")
    parser.add_argument("--budget-s", type=float, default=510, help="default %(default)s")
    options = parser.parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        parser.error("no GPU is here: --small does the same on a CPU")
    began = time.perf_counter()
    check = Check(small=options.small, budget_s=options.budget_s)
    name = torch.cuda.get_device_name(0) if check.cuda else "CPU"
    print(f"{name}, torch {torch.__version__}; built in {time.perf_counter() - began:.1f} s", flush=True)
    for title, (section, needs_s) in check.sections().items():
        check.run(title, section, 0 if options.small else needs_s)
    failed = [title for title, found in check.found.items() if "failed" in found]
    print(json.dumps({"device": name, "small": options.small, "failed": failed, "sections": check.found}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
