"""Ranks: sharded or whole they agree with one rank, all stop at one step, and none waits for ever."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.tensor import DTensor

from tests.drawn_pairs import write_people
from tests.drawn_pipeline import environment
from tests.drawn_training import built, samples, tiny
from tests.tiny_processes import PROCESSES, ended, free_port, start
from tests.train_on_shards import train_on_shards
from tests.train_tiny import training
from tests.training.test_loop import curve, lines
from training.checkpoint import checkpoints_in, load_checkpoint
from training.generation.pipeline import PersonaPipeline
from training.generation.validation_pictures import ValidationPictures
from training.ranks import Ranks, StopSignals, gathered, join_ranks, shard
from training.run_settings import PictureSettings


def two_ranks(folder: Path, **settings: Any) -> list[Any]:
    port = free_port()
    return [start(folder, rank, 2, port, **settings) for rank in range(2)]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(checkpoints_in(folder / "checkpoints")[-1])
    return {
        f"{part} {name}": tensor
        for part, named in checkpoint.tensors.items()
        for name, tensor in named.items()
    }


def test_two_sharded_compiled_ranks_that_make_pictures_agree_with_one_rank_and_each_goes_on_from_the_other(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"tune_unet": True, "accumulate": 2, "optimiser": {"lr": 1e-3, "eps": 1e-4}}
    settings |= {"pictures_every": 3, "validate_every": 3, "people": 3}
    training(tmp_path / "one", Ranks(), batch=2, steps=6, **settings).run()
    # Sharded on two ranks, then on one, then sharded again.
    for steps in (3, 4, 6):
        if steps == 4:
            training(tmp_path / "two", Ranks(), batch=2, steps=steps, **settings).run()
            continue
        compiled = {"backend": "eager"} if steps == 6 else {}
        for process in two_ranks(tmp_path / "two", batch=1, steps=steps, shard=True, **compiled, **settings):
            assert ended(process) == 0
    made = [
        {file.name: np.asarray(Image.open(file), int) for file in (tmp_path / run / "pictures").iterdir()}
        for run in ("one", "two")
    ]
    assert made[0].keys() == {f"step-0000000{step}.jpg" for step in (3, 6)}
    for name, picture in made[0].items():
        assert np.abs(picture - made[1][name]).max() <= 8, name  # levels, of a JPEG
    validated = [[line["validation_loss"] for line in lines(tmp_path / run) if "validation_loss" in line]
                 for run in ("one", "two")]  # fmt: skip
    assert validated[1][0] == pytest.approx(validated[0][0], rel=1e-5)  # of step 3
    for one, two in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    expected, found = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_two_sharded_ranks_in_bf16_agree_with_one_rank_and_save_what_was_not_rounded(tmp_path: Path) -> None:
    # Gathered weights are rounded to bf16, whose step is 7.8e-3; parts and sums of gradients are not.
    settings: dict[str, Any] = {"tune_unet": True, "accumulate": 2, "precision": "bf16", "steps": 4}
    settings |= {"pictures_every": 2, "validate_every": 2, "optimiser": {"lr": 1e-3, "eps": 1e-4}}
    training(tmp_path / "one", Ranks(), batch=2, **settings).run()
    for process in two_ranks(tmp_path / "two", batch=1, shard=True, **settings):
        assert ended(process) == 0
    assert (tmp_path / "two/pictures/step-00000004.jpg").exists()
    for one, two in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=2e-2)
    expected, found = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    for name, tensor in found.items():
        if name.startswith("adapter") and tensor.ndim == 2:
            assert not torch.equal(tensor, tensor.bfloat16().float()), name
            assert (tensor - expected[name]).norm() <= 2e-2 * expected[name].norm(), name


def test_two_sharded_ranks_validate_and_picture_the_averages_of_a_schedule_free_run_as_one_does(
    tmp_path: Path,
) -> None:
    optimiser = {"name": "schedule_free", "lr": 1e-2, "eps": 1e-4, "warmup_steps": 2}
    # Steps follow pictures of one person, of which the second rank draws none.
    settings: dict[str, Any] = {"tune_unet": True, "optimiser": optimiser, "people": 1}
    settings |= {"pictures_every": 2, "validate_every": 3, "picture_weights": ("last", "averaged")}
    for steps in (3, 6):  # the second goes on from the first
        training(tmp_path / "one", Ranks(), batch=2, steps=steps, **settings).run()
        for process in two_ranks(tmp_path / "two", batch=1, steps=steps, shard=True, **settings):
            assert ended(process) == 0
    made = [
        {file.name: np.asarray(Image.open(file), int) for file in (tmp_path / run / "pictures").iterdir()}
        for run in ("one", "two")
    ]
    expected = {f"step-0000000{step}-averaged.jpg" for step in (2, 3, 4, 6)}  # its parameters are no use
    assert made[0].keys() == made[1].keys() == expected
    for name, picture in made[0].items():
        assert np.abs(picture - made[1][name]).max() <= 8, name  # levels, of a JPEG
    one, two = (
        [line["validation_loss"] for line in lines(tmp_path / run) if "validation_loss" in line]
        for run in ("one", "two")
    )
    assert len(one) == 2
    assert two == pytest.approx(one, rel=1e-4)
    assert [line[1] for line in curve(tmp_path / "two")] == pytest.approx(
        [line[1] for line in curve(tmp_path / "one")], rel=1e-4
    )
    whole, parts = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


KEYS = [f"{person:016x}-a" for person in range(2)]  # of write_people


def drawing_rank(folder: Path, rank: int, world: int, port: int, broken: int | None, drawn: Any) -> None:
    """One rank that makes a grid of three people and one of two prompts between two steps of a module that is
    sharded where there are others; which seeds it draws goes to `drawn`, and what it was told. The `broken`
    rank cannot draw. Of four held-out people the second counts for nothing."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    recipe, drawn_seeds = tiny("visual_persona", denoising={"tune_unet": True}), []

    class Noting(PersonaPipeline):
        def generate(self, conditions: Any, seeds: Any, *rest: Any, **more: Any) -> torch.Tensor:
            if rank == broken:
                raise OSError("no decoder")
            drawn_seeds.extend(seeds)
            return super().generate(conditions, seeds, *rest, **more)

    class Pictures(ValidationPictures):
        def pipeline(self, module: torch.nn.Module) -> PersonaPipeline:
            return Noting(recipe, module)

    fixed = [{"sample": f"{folder / 'shards'}:{key}", "prompt": "a"} for key in KEYS]
    shown = PictureSettings.model_validate({"people": 3, "sampling": {"steps": 2}, "fixed": fixed})
    keys = [f"person-90{place}-a" for place in range(4)][rank * 4 // world : (rank + 1) * 4 // world]
    batch = samples(recipe, keys)
    weight = torch.tensor([float(key != "person-901-a") for key in keys])
    module = built(recipe)

    def step() -> None:
        with ranks.averaging(module, 0, 1):
            module(batch.fields, batch.streams).mean().backward()

    with join_ranks(timeout_s=60) as ranks:
        if world > 1:
            shard(module, recipe.blocks(module), ranks)
        step()
        made = Pictures(recipe, replace(batch, weight=weight), folder / str(world), shown, (64, 64), ranks)
        with gathered(module):
            try:
                made(module, 1)
                told = ""
            except RuntimeError as error:
                told = str(error)
        step()
    drawn.put((rank, drawn_seeds, told))


def drawn_by(folder: Path, world: int, broken: int | None = None) -> dict[int, tuple[list[int], str]]:
    port, drawn = free_port(), PROCESSES.Queue()
    ranks = [
        PROCESSES.Process(target=drawing_rank, args=(folder, rank, world, port, broken, drawn))
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    assert [ended(process) for process in ranks] == [0] * world
    found = [drawn.get(timeout=60) for _ in ranks]
    return {rank: (seeds, told) for rank, seeds, told in found}


def test_pictures_are_dealt_to_ranks_each_is_drawn_once_and_the_files_are_those_of_one_rank(
    tmp_path: Path,
) -> None:
    write_people(tmp_path / "shards")
    assert drawn_by(tmp_path, 1) == {0: ([0, 1, 2, 0, 1], "")}
    assert drawn_by(tmp_path, 2) == {0: ([0, 2, 0], ""), 1: ([1, 1], "")}
    files = [{file.name: file for file in (tmp_path / world).iterdir()} for world in ("1", "2")]
    assert files[0].keys() == files[1].keys() == {"step-00000001.jpg", "step-00000001-fixed.jpg"}
    for name, file in files[0].items():
        one, two = (np.asarray(Image.open(of), int) for of in (file, files[1][name]))
        assert np.abs(one - two).max() <= 2, name  # levels: rows of other batches round otherwise


def test_a_rank_that_cannot_draw_tells_all_and_none_waits_for_it_then_or_in_the_next_step(
    tmp_path: Path,
) -> None:
    write_people(tmp_path / "shards")
    assert drawn_by(tmp_path, 2, broken=1) == {0: ([0, 2, 0], "no decoder"), 1: ([], "no decoder")}
    assert not (tmp_path / "2").exists()


@pytest.fixture
def group_of_one() -> Iterator[Ranks]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield Ranks()
    torch.distributed.destroy_process_group()


def test_weights_stay_gathered_from_the_first_batch_of_a_step_to_its_last(group_of_one: Ranks) -> None:
    recipe = tiny("visual_persona")
    module = built(recipe)
    model = shard(module, recipe.blocks(module), group_of_one)
    batch = samples(recipe, ["a", "b"])
    in_parts = []
    for place, batches in ((0, 1), (0, 2), (1, 2)):
        with group_of_one.averaging(model, place, batches):
            loss = model(batch.fields, batch.streams).mean()
            trained = [p for p in module.identity.transformer.layers[0].parameters() if p.requires_grad]
            in_parts.append({isinstance(p, DTensor) for p in trained})
            loss.backward()
        trained = [p for p in module.parameters() if p.requires_grad]
        in_parts.append({isinstance(p, DTensor) for p in trained})
    # Behind forward and backward of: the one batch, the first of two, the last of two.
    assert in_parts == [{True}, {True}, {False}, {False}, {False}, {True}]


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "sharded"])
def test_two_ranks_train_lora_beside_a_quantised_base_as_one_does_and_go_on(
    shard: bool, tmp_path: Path
) -> None:
    denoising = {"quantise": "int8", "offload_encoders": True, "lora": {"rank": 2, "dora": True}}
    settings: dict[str, Any] = {"denoising": denoising, "optimiser": {"lr": 1e-3, "eps": 1e-4}}
    training(tmp_path / "one", Ranks(), batch=2, steps=4, **settings).run()
    for steps in (2, 4):
        for process in two_ranks(tmp_path / "two", batch=1, steps=steps, shard=shard, **settings):
            assert ended(process) == 0
    for one, two in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    expected, found = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two")
    assert any("lora_magnitude_vector" in name for name in expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_ranks_that_are_told_to_stop_save_the_same_step_and_go_on_from_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch": 1, "steps": 400, "checkpoint_every": 1000, "read_every": 1}
    processes = two_ranks(tmp_path, step_s=0.02, **settings)
    deadline = time.monotonic() + 300
    while not (tmp_path / "metrics.jsonl").exists() or len(curve(tmp_path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # One rank is told; the other one hears of it.
    assert processes[1].pid is not None
    processes[1].terminate()
    assert [ended(process) for process in processes] == [0, 0]
    (saved,) = checkpoints_in(tmp_path / "checkpoints")
    step = load_checkpoint(saved).step
    assert 3 <= step < 400
    assert [line[0] for line in curve(tmp_path)] == list(range(1, step + 1))
    goes_on = training(tmp_path, Ranks(), batch=2, steps=step + 1, read_every=1)
    assert goes_on.step == step
    goes_on.run()
    # The curve is that of a run which nobody stopped.
    undisturbed = tmp_path / "undisturbed"
    training(undisturbed, Ranks(), batch=2, steps=5, read_every=1).run()
    for one, two in zip(curve(undisturbed), curve(tmp_path), strict=False):
        assert two[:2] == pytest.approx(one[:2], rel=1e-5)


def test_a_torchrun_that_is_told_to_stop_while_a_checkpoint_is_written_ends_with_all_saved(
    tmp_path: Path,
) -> None:
    words = ["--standalone", "--nproc-per-node", "2", "--shutdown-timeout", "280", "-m"]
    command = [sys.executable, "-m", "torch.distributed.run", *words, "tests.train_slow_checkpoint"]
    launcher = subprocess.Popen(
        [*command, tmp_path], env=environment() | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "checkpoints/.step-00000004.tmp/checkpoint.json").exists():
            assert time.monotonic() < deadline
            assert launcher.poll() is None
            time.sleep(0.05)
        launcher.terminate()
        _, told = launcher.communicate(timeout=120)
    finally:
        if launcher.poll() is None:  # or its ranks would go on training
            launcher.terminate()
            launcher.wait(60)
    # torchrun's own words after any signal, whatever its ranks did: docs/training.md says so.
    assert launcher.returncode == 1
    assert "SignalException" in told
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["saved"] == ranks[0]["steps"] >= 4
    assert curve(tmp_path)[-1][0] == ranks[0]["steps"]


def waiting_rank(rank: int, port: int, result: Any) -> None:
    """Rank 0 asks the other one, which does not answer; how long it waited."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with join_ranks(timeout_s=3) as ranks:
        began = time.monotonic()
        try:
            if rank == 0:
                ranks.anyone(lambda: False)()
            else:
                time.sleep(10)
        except RuntimeError:
            result.put(time.monotonic() - began)


def test_a_rank_waits_for_another_no_longer_than_it_was_told(tmp_path: Path) -> None:
    waited, port = PROCESSES.Queue(), free_port()
    ranks = [PROCESSES.Process(target=waiting_rank, args=(rank, port, waited)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert 2 < waited.get(timeout=300) < 9
    for rank in ranks:
        rank.terminate()
        rank.join(60)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_signals_that_follow_at_once_are_one_and_a_later_one_ends_the_process() -> None:
    with StopSignals(same_s=60) as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop()
        assert stop.name == "SIGTERM"
    with StopSignals(same_s=0) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_shards_that_no_number_of_ranks_divides_never_hang_a_run(tmp_path: Path) -> None:
    # 12 groups are two steps of 5 and a rest of 2, of which one rank has none; the run is two epochs.
    shards = write_people(tmp_path / "shards", max_samples=5)
    port = free_port()
    ranks = [
        PROCESSES.Process(target=train_on_shards, args=(str(shards), tmp_path / "run", rank, 2, port, 5, 5))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    assert [ended(rank) for rank in ranks] == [0, 0]
    assert [line[0] for line in curve(tmp_path / "run")] == [1, 2, 3, 4, 5]
