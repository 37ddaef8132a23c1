"""The loop: resume to the bit, ranks that agree, NaN that is named, and no method's name in it."""

import json
import math
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.drawn_pipeline import ROOT
from tests.drawn_training import DrawnBatches, built, samples, tiny
from tests.tiny_processes import ended, free_port, start
from tests.train_tiny import training
from training.batch import Batch
from training.checkpoint import CheckpointError, checkpoints_in, load_checkpoint
from training.loop import Training
from training.optimiser import learning_rate
from training.ranks import Ranks
from training.rates import StepFlops, peak_flops_of, step_flops
from training.recipes import CATALOGUE
from training.run_settings import LoopSettings, OptimiserSettings
from training.step import NonFiniteError

STEPS = 14


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(folder: Path) -> list[tuple[float, float, float]]:
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines(folder) if "loss" in line]


def same_tensors(first: Path, second: Path) -> bool:
    one, two = load_checkpoint(first).tensors, load_checkpoint(second).tensors
    return all(
        torch.equal(tensor, two[part][name]) for part, named in one.items() for name, tensor in named.items()
    )


def run_undisturbed(folder: Path, recipe: str) -> Path:
    """A run of STEPS steps that nothing happens to."""
    settings: dict[str, Any] = {"recipe": recipe, "steps": STEPS, "checkpoint_every": 3, "read_every": 2}
    assert training(folder, Ranks(), **settings).run() == STEPS
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), "visual_persona")


ON_EACH_BASE = pytest.mark.parametrize("recipe", ["visual_persona", "flux2_reference"])


@ON_EACH_BASE
def test_a_run_killed_at_a_random_step_resumes_to_the_same_curve_bit_for_bit(
    recipe: str, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    kill_at = random.Random(time.time_ns()).randrange(4, STEPS)
    settings: dict[str, Any] = {"recipe": recipe, "steps": STEPS, "checkpoint_every": 3, "read_every": 2}
    if recipe != "visual_persona":
        undisturbed = run_undisturbed(tmp_path_factory.mktemp("undisturbed"), recipe)
    process = start(tmp_path, kill_at=kill_at, **settings)
    assert ended(process) == -signal.SIGKILL
    left = curve(tmp_path)
    assert len(left) <= kill_at

    resumed = training(tmp_path, Ranks(), **settings)
    assert 0 < resumed.step <= kill_at, f"killed at {kill_at}"
    resumed.run()
    assert curve(tmp_path) == curve(undisturbed), f"killed at {kill_at}"
    assert same_tensors(
        checkpoints_in(tmp_path / "checkpoints")[-1], undisturbed / "checkpoints/step-00000014"
    )


@ON_EACH_BASE
def test_two_ranks_agree_with_one_rank_at_the_same_global_batch(recipe: str, tmp_path: Path) -> None:
    port = free_port()
    settings: dict[str, Any] = {"recipe": recipe, "steps": 5, "accumulate": 2}
    two = [start(tmp_path / "two", rank, 2, port, batch=1, **settings) for rank in range(2)]
    training(tmp_path / "one", Ranks(), batch=2, **settings).run()
    for process in two:
        assert ended(process) == 0

    for one, other in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    # A start from two ranks is gone on with by one: the position is what all consumed together.
    records = [load_checkpoint(tmp_path / name / "checkpoints/step-00000005") for name in ("one", "two")]
    assert records[0].record["batches"] == records[1].record["batches"] == {"consumed": 20}
    goes_on = training(tmp_path / "two", Ranks(), batch=2, **{**settings, "steps": 6})
    assert goes_on.step == 5
    goes_on.run()
    assert len(curve(tmp_path / "two")) == 6


def test_accumulated_batches_are_one_large_batch(tmp_path) -> None:
    training(tmp_path / "large", Ranks(), batch=4, steps=4).run()
    training(tmp_path / "small", Ranks(), batch=1, steps=4, accumulate=4).run()
    for large, small in zip(curve(tmp_path / "large"), curve(tmp_path / "small"), strict=True):
        assert small == pytest.approx(large, rel=1e-5)


class HostReads(TorchDispatchMode):
    """Counts operations that make the host wait for a number of the device."""

    READING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::item")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().split(".")[0] in self.READING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit"])
def test_a_step_reads_nothing_from_the_device(
    optimiser: Literal["adamw", "adamw_8bit"], tmp_path: Path
) -> None:
    reads = []
    for steps in (2, 5):
        recipe = tiny("visual_persona", denoising={"min_snr": 5.0, "noise_offset": 0.05})
        named = OptimiserSettings(name=optimiser)
        settings = LoopSettings(steps=steps, precision="bf16", read_every=100, optimiser=named)
        run = Training(recipe, built(recipe), DrawnBatches(recipe, 2), settings, tmp_path / str(steps))
        with HostReads() as host:
            run.run()
        reads.append(host.count)
    # What a run reads once, at its end, is the same for any number of steps.
    assert reads[0] == reads[1]


class Fillers(DrawnBatches):
    """Every batch has one more sample than the plain ones, which counts for nothing."""

    def __next__(self) -> Batch:
        batch = super().__next__()
        keys = [*batch.keys, "filler-a"]
        weight = torch.tensor([1.0] * len(batch) + [0.0])
        fields = samples(self.recipe, keys).fields
        return Batch.of(fields, keys, seed=self.seed, epoch=0, weight=weight)


def test_samples_of_weight_zero_change_nothing(tmp_path) -> None:
    recipe = tiny("visual_persona")
    settings = LoopSettings(steps=2, precision="fp32")
    for name, batches in {"plain": DrawnBatches, "filled": Fillers}.items():
        Training(recipe, built(recipe), batches(recipe, 2), settings, tmp_path / name).run()
    for plain, filled in zip(curve(tmp_path / "plain"), curve(tmp_path / "filled"), strict=True):
        assert filled == pytest.approx(plain, rel=1e-5)


class Poisoned(DrawnBatches):
    """The sizes of one person (or how much of a picture is that person), or of all from that one on, are not
    numbers."""

    for_ever = False

    def __next__(self) -> Batch:
        batch = super().__next__()
        for place, key in enumerate(batch.keys):
            if key == "person-009-a" or (self.for_ever and key > "person-009-a"):
                field = "target_cut" if "target_cut" in batch.fields else "person"
                batch.fields[field][place] = torch.nan
        return batch


@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit", "adafactor", "prodigy", "schedule_free"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_run_goes_on(
    optimiser: str, tmp_path: Path
) -> None:
    recipe = tiny("visual_persona")
    said: list[str] = []
    named = OptimiserSettings.model_validate(
        {"name": optimiser, "lr": 1.0 if optimiser == "prodigy" else 1e-4}
    )
    settings = LoopSettings(steps=7, precision="fp32", read_every=3, checkpoint_every=1, optimiser=named)
    settings = settings.model_copy(update={"keep_checkpoints": 9})
    Training(recipe, built(recipe), Poisoned(recipe, 2), settings, tmp_path, say=said.append).run()
    rows = {line["step"]: line for line in lines(tmp_path)}
    assert rows.keys() == set(range(1, 8))
    assert rows[5]["skipped"] == 1
    assert all(math.isfinite(rows[step]["loss"]) for step in rows if step != 5)
    (told,) = [line for line in said if "not finite" in line]
    assert told.startswith("step 5: the loss of person-009-a is not finite: skipped")
    before, after, later = (
        load_checkpoint(tmp_path / f"checkpoints/step-0000000{step}").tensors for step in (4, 5, 6)
    )
    for part in ("adapter", "optimiser"):
        assert all(torch.equal(tensor, after[part][name]) for name, tensor in before[part].items())
        assert not all(torch.equal(tensor, later[part][name]) for name, tensor in before[part].items())


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_steps_in_a_row_that_are_not_finite_stop_the_run_and_name_the_sample(
    name: str, tmp_path: Path
) -> None:
    recipe = tiny(name)
    settings = LoopSettings(steps=20, precision="fp32", read_every=4, checkpoint_every=2, max_skipped=1)
    batches = Poisoned(recipe, 2)
    batches.for_ever = True
    run = Training(recipe, built(recipe), batches, settings, tmp_path)
    with pytest.raises(NonFiniteError, match="step 6: the loss of person-010-a, person-011-a is") as caught:
        run.run()
    assert "2 such steps in a row" in str(caught.value)
    assert "\n" not in str(caught.value)
    # The next run goes on with weights that are finite.
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]
    adapter = load_checkpoint(tmp_path / "checkpoints/step-00000004").tensors["adapter"]
    assert all(torch.isfinite(tensor).all() for tensor in adapter.values())


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_loop_trains_every_recipe_and_the_loss_falls(name: str, tmp_path: Path) -> None:
    recipe = tiny(name, dropout={"identity": 0.0, "text": 0.0, "both": 0.0, "region": 0.0})
    settings = LoopSettings(
        steps=60, precision="fp32", optimiser=OptimiserSettings(lr=3e-3, warmup_steps=5), ema_decay=0.9
    )
    # The same two people with the same noise each time: a loss that falls has been learned.
    validation = [samples(recipe, ["person-000-a", "person-001-a"], seed=0, epoch=0)]
    run = Training(recipe, built(recipe), _Same(validation[0]), settings, tmp_path, validation=validation)
    frozen = {name: p.clone() for name, p in run.module.named_parameters() if not p.requires_grad}
    run.run()
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    (after,) = [line["validation_loss"] for line in lines(tmp_path) if "validation_loss" in line]
    assert after < 0.9 * losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in run.module.named_parameters() if n in frozen)


class _Same(DrawnBatches):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __next__(self) -> Batch:
        return self._batch

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_a_checkpoint_of_another_recipe_is_refused_in_one_line(undisturbed: Path) -> None:
    with pytest.raises(CheckpointError, match="made by the recipe visual_persona, this one is ip_adapter"):
        training(undisturbed, Ranks(), recipe="ip_adapter", steps=20)


def test_old_checkpoints_go_and_the_last_ones_stay(undisturbed: Path) -> None:
    names = [path.name for path in checkpoints_in(undisturbed / "checkpoints")]
    assert names == ["step-00000009", "step-00000012", "step-00000014"]


@pytest.mark.parametrize("tune_unet", [False, True])
def test_bf16_trains_near_float32(tune_unet: bool, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        recipe = tiny("visual_persona", denoising={"tune_unet": tune_unet})
        settings = LoopSettings.model_validate({"steps": 3, "precision": precision})
        module = built(recipe, dtype=settings.frozen_dtype)
        Training(recipe, module, DrawnBatches(recipe, 2), settings, tmp_path / precision).run()
    for high, low in zip(curve(tmp_path / "fp32"), curve(tmp_path / "bf16"), strict=True):
        assert low[:2] == pytest.approx(high[:2], rel=0.03)


def test_a_tuned_network_whose_channels_lie_last_goes_on_with_the_moments_that_it_had(tmp_path: Path) -> None:
    recipe = tiny("visual_persona", denoising={"tune_unet": True})

    def trained(folder: Path, steps: int) -> None:
        module = built(recipe, seed=5).to(memory_format=torch.channels_last)
        settings = LoopSettings.model_validate(
            {"steps": steps, "precision": "fp32", "optimiser": {"lr": 1e-2, "schedule": "constant"}}
        )
        Training(recipe, module, DrawnBatches(recipe, 2), settings, folder).run()

    trained(tmp_path / "once", 4)
    for steps in (2, 4):
        trained(tmp_path / "twice", steps)
    for one, two in zip(curve(tmp_path / "once"), curve(tmp_path / "twice"), strict=True):
        assert two == pytest.approx(one, rel=1e-6)


def test_metrics_state_every_step_and_the_wait_for_data(undisturbed: Path) -> None:
    assert [line["step"] for line in lines(undisturbed)] == list(range(1, STEPS + 1))
    read = [line for line in lines(undisturbed) if "samples_per_s" in line]
    assert [line["step"] for line in read] == [2, 3, 4, 6, 8, 9, 10, 12, 14]
    assert all(0 <= line["data_wait"] <= 1 and line["samples_per_s"] > 0 for line in read)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1, 1, 1]), ("linear", [1, 0.55, 0.1]), ("cosine", [1, 0.55, 0.1])],
)
def test_learning_rate_warms_up_and_follows_its_schedule(schedule: str, expected: list[float]) -> None:
    settings = OptimiserSettings.model_validate(
        {"lr": 2.0, "warmup_steps": 10, "schedule": schedule, "last_lr_share": 0.1}
    )
    warming = [learning_rate(settings, step, 110) for step in range(10)]
    assert warming == sorted(warming)
    assert 0 < warming[0] < warming[-1] < 2
    found = [learning_rate(settings, step, 110) / 2 for step in (10, 60, 110)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H20", 148),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 5090", 209),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_a_gpu_has_the_peak_that_its_maker_states(name: str, tflops: float) -> None:
    assert peak_flops_of(name) == tflops * 1e12


def test_a_gpu_that_is_not_in_the_table_has_no_peak() -> None:
    assert peak_flops_of("NVIDIA GeForce GTX 1080") is None


def test_flops_are_counted_without_running_and_grow_with_the_batch() -> None:
    recipe = tiny("visual_persona")
    module = built(recipe)
    one, two = (step_flops(module, samples(recipe, keys)) for keys in (["a"], ["a", "b"]))
    assert two == (2 * one[0], 2 * one[1])
    assert 0 < one[1] < 3 * one[0]
    assert all(parameter.grad is None for parameter in module.parameters())


def test_flops_of_any_count_of_regions_are_those_of_a_trace_of_it() -> None:
    recipe = tiny("visual_persona")
    module = built(recipe)
    batch = samples(recipe, ["a", "b"])
    flops = StepFlops(module)
    for traced in (2, 7):
        flops.per_sample(replace(batch, counts={"seen": traced}))
    counted = replace(batch, counts={"seen": 10})
    assert flops.per_sample(counted) == pytest.approx(sum(step_flops(module, counted)) / 2, rel=1e-12)


def test_flops_of_the_full_size_are_those_counted_for_the_published_model() -> None:
    recipe = tiny("visual_persona", sdxl={}, dino={}, decoder={}, denoising={"cached_latents": True})
    with torch.device("meta"):
        module = recipe.build(torch.bfloat16)
        fields = {f.name: torch.zeros(1, *f.shape, dtype=f.dtype) for f in recipe.fields(1024, 1024)}
        batch = Batch(fields, ["a"], torch.zeros(1, dtype=torch.int64), torch.ones(1))
    forward, backward = (flops / 1e12 for flops in step_flops(module, batch))
    # UNet with identity tokens and decoder 9.55 + 12.70; DINOv2 2.99 and the text encoders 0.11 besides.
    assert forward - 2.99 - 0.11 == pytest.approx(9.55, abs=0.02)
    assert backward == pytest.approx(12.70, abs=0.02)


def test_the_loop_is_short_and_names_no_method() -> None:
    source = (ROOT / "training" / "loop.py").read_text()
    assert len(source.splitlines()) < 300
    for name in CATALOGUE:
        words = [name, name.replace("_", ""), name.replace("_", "-"), name.replace("_", " ")]
        assert not re.search("|".join(words), source, re.IGNORECASE)
    assert not re.search(r"sdxl|unet|dino|diffusers|transformers|persona", source, re.IGNORECASE)
