"""SIGKILL of a training, between steps or while it writes a checkpoint."""

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.drawn_shards import bytes_of
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace
from tests.forked import Work

SHARE = 5
PRELOADED = ("tests.train_tiny",)
SETTINGS: dict[str, Any] = {"steps": 12, "checkpoint_every": 2, "read_every": 2, "keep_checkpoints": 3}


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment; the same command goes on to the same losses and tensors, bit for bit."""
    share = random.random()

    def undisturbed() -> tuple[dict[str, bytes], float]:
        folder = place.fresh()
        work = _train(folder)
        if work.exit_code():
            raise RuntimeError("the undisturbed training failed")
        return _result(folder), work.cpu_s

    expected, cpu_s = place.once("undisturbed training", undisturbed)
    folder = place.fresh()
    work = _train(folder)
    hit = work.reaches(share * cpu_s)
    if hit:
        work.kill()
    _require_whole_checkpoints(folder)
    if (code := _train(folder).exit_code()) != 0:
        raise BrokenPromiseError(f"the training cannot be gone on with: exit code {code}")
    _require_whole_checkpoints(folder)
    found = _result(folder)
    wrong = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if wrong:
        raise BrokenPromiseError(f"not as undisturbed: {', '.join(sorted(wrong)[:4])}")
    return Injury(hit, f"killed at {share:.0%}")


def _train(folder: Path) -> Work:
    from tests.train_tiny import train_in_process

    return Work(train_in_process, folder / "training", 0, 1, 0, SETTINGS)


def _require_whole_checkpoints(folder: Path) -> None:
    from training.checkpoint import CheckpointError, checkpoints_in, load_checkpoint

    for path in checkpoints_in(folder / "training" / "checkpoints"):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            raise BrokenPromiseError(f"half a checkpoint can be seen: {error}") from error


def _result(folder: Path) -> dict[str, bytes]:
    """Checkpoints as they are; of metrics.jsonl what does not tell the time."""
    files = bytes_of(folder / "training")
    lines = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
    curve = [(line["step"], line["loss"], line["grad_norm"]) for line in lines]
    kept = {name: data for name, data in files.items() if name.startswith("checkpoints/")}
    return {**kept, "the curve": repr(curve).encode()}
