"""Checkpoints: whole or not there, what was written or refused, and rotated."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forked import PROCESSES, preload
from tests.write_checkpoints import write_checkpoints
from training.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    checkpoints_in,
    load_checkpoint,
    opened_once,
    place_of,
)
from training.ranks import Ranks

preload("tests.write_checkpoints", "tests.train_tiny")


def write(folder: Path, *steps: int, **rotation: Any) -> list[str]:
    checkpoints = CheckpointFolder(folder, **rotation)
    for step in steps:
        tensors = {"adapter": {"a.weight": torch.full((2, 3), float(step))}, "optimiser": {}}
        checkpoints.save(step, tensors, {"batches": {"consumed": 10 * step}})
    checkpoints.close()
    return [path.name for path in checkpoints_in(folder)]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path, 7)
    found = load_checkpoint(tmp_path / "step-00000007")
    assert found.step == 7
    assert found.record == {"batches": {"consumed": 70}}
    assert torch.equal(found.tensors["adapter"]["a.weight"], torch.full((2, 3), 7.0))
    assert found.tensors["optimiser"] == {}


def test_a_checkpoint_is_of_the_moment_of_saving(tmp_path: Path) -> None:
    weight = torch.zeros(1_000_000)
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save(1, {"adapter": {"x": weight}}, {})
    weight.fill_(9)  # as the next step does, while the thread still writes
    checkpoints.close()
    assert not load_checkpoint(tmp_path / "step-00000001").tensors["adapter"]["x"].any()


def test_rotation_keeps_the_last_ones_and_the_multiples(tmp_path: Path) -> None:
    assert write(tmp_path, *range(1, 9), keep=2, keep_every=3) == [
        f"step-{step:08d}" for step in (3, 6, 7, 8)
    ]


def test_a_checkpoint_from_a_killed_write_is_never_loaded(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        process = PROCESSES.Process(target=write_checkpoints, args=(folder,))
        process.start()
        deadline = time.monotonic() + 60
        while not checkpoints_in(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.join()
        found = checkpoints_in(folder)
        assert found
        for path in found:
            checkpoint = load_checkpoint(path)
            assert checkpoint.record["batches"] == {"consumed": checkpoint.step}
            for named in checkpoint.tensors.values():
                assert torch.equal(named["x"], torch.full((500_000,), float(checkpoint.step)))
        # What the killed write left aside is no obstacle to the next one.
        again = checkpoints_in(folder)[-1].name
        assert again in write(folder, int(again.removeprefix("step-")), keep=5)


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "record"])
def test_a_damaged_checkpoint_is_refused_and_named(harm: str, tmp_path: Path) -> None:
    write(tmp_path, 1)
    file = tmp_path / "step-00000001" / ("checkpoint.json" if harm == "record" else "adapter.safetensors")
    content = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-4] if harm in ("cut", "record") else content[:-4] + b"\1\2\3\4")
    with pytest.raises(CheckpointError, match=file.name) as caught:
        load_checkpoint(tmp_path / "step-00000001")
    assert "\n" not in str(caught.value)


def test_a_removal_that_is_killed_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, 2)

    def killed(folder: Path, **_: Any) -> None:
        for file in Path(folder).glob("adapter.safetensors"):
            file.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        for step in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                place_of(tmp_path).remove(f"step-{step:08d}")
    assert [load_checkpoint(path).step for path in checkpoints_in(tmp_path)] == []
    assert write(tmp_path, 2) == ["step-00000002"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_write_that_fails_is_told_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    checkpoints.save(1, {"adapter": {"x": torch.ones(1)}}, {})
    with pytest.raises(OSError, match="checkpoints"):
        checkpoints.save(2, {"adapter": {"x": torch.ones(1)}}, {})
    checkpoints.close()


class Meeting:
    """Where ranks that are threads of this process gather."""

    def __init__(self, world: int) -> None:
        self.met, self.told = threading.Barrier(world), [None] * world

    def gather(self, rank: int, own: Any) -> list[Any]:
        self.told[rank] = own
        self.met.wait(30)
        everyone = list(self.told)
        self.met.wait(30)
        return everyone


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """One of them."""

    meeting: Any = None

    def gather(self, own: Any) -> list[Any]:
        found: list[Any] = self.meeting.gather(self.rank, own)
        return found


class Remote:
    """A store of which one fetches a copy, which is deleted behind it."""

    def __init__(self, folder: Path, problem: str | None = None) -> None:
        self.folder, self.problem, self.fetched = folder, problem, 0

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        self.fetched += 1
        if self.problem is not None:
            raise OSError(self.problem)
        copy = self.folder / f"{name}-{self.fetched}"
        copy.mkdir()
        yield copy
        copy.rmdir()


@pytest.mark.parametrize("problem", [None, "s3://runs: no permission"])
def test_one_rank_of_a_machine_fetches_a_checkpoint_and_all_read_it(
    problem: str | None, tmp_path: Path
) -> None:
    place, meeting = Remote(tmp_path, problem), Meeting(3)
    seen: list[Any] = [None] * 3

    def one(rank: int) -> None:
        try:
            with opened_once(place, "step-00000001", ThreadRanks(rank, 3, meeting=meeting)) as folder:  # type: ignore[arg-type]
                time.sleep(0.1 * rank)  # the first one to be done must not delete it
                seen[rank] = folder.name, folder.is_dir()
        except CheckpointError as error:
            seen[rank] = str(error)

    ranks = [threading.Thread(target=one, args=(rank,)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert seen == [("step-00000001-1", True) if problem is None else problem] * 3
    assert place.fetched == 1
    assert list(tmp_path.iterdir()) == []
