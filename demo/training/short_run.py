"""The demo's training: the small configuration on the shards that the demo curated, for a minute or so.

A few dozen groups teach little: this shows that everything fits, at what speed, and that the loss falls.
`python -m demo.learns` measures what is learned, from more people.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shards.reading.folder import DatasetFolder
from shards.tools.split import split_by_keys

CONFIG = "visual_persona_demo"
_STEPS = 5000  # more than fit into the time
_BATCH = 8  # and so many groups are held out, at least
_SHOWN = 6  # people in the grid

Say = Callable[[str], None]


@dataclass(frozen=True)
class ShortRun:
    """What a training did in its time.

    groups, held_out   trained on, and not
    losses        of every step
    validation    (step, loss) on the people held out
    samples_per_s, data_wait   means over the run; the latter a share of the time
    grid          a picture: reference, target, generated, a row for each of some held out
    """

    groups: int
    held_out: int
    steps: int
    seconds: float
    losses: list[float]
    validation: list[tuple[int, float]]
    samples_per_s: float
    data_wait: float
    grid: str


def train_shortly(shards: Path, out: Path, seconds: float, say: Say) -> ShortRun:
    """Trains for so many seconds under `out`, unless that has been done. Raises ValueError, one line."""
    done = out / "short-run.json"
    if done.exists():
        return ShortRun(**json.loads(done.read_text()))
    # torch is heavy, and a demo that goes on needs none of it.
    import torch

    from training.export import adapter_of, last_checkpoint
    from training.generation.validation_pictures import ValidationPictures
    from training.ranks import Ranks
    from training.run_settings import PictureSampling, PictureSettings, read_settings
    from training.start import prepare

    torch.set_num_threads(1)  # the tensors are small: a second thread waits more than it works
    train, held_out = out / "train", out / "held-out"
    groups, held = _split(shards, held_out, train)
    say(f"training {CONFIG} on {groups} groups for {seconds:.0f} s")
    changes = {
        "data.batch": _BATCH,
        "data.validation_batches": 1,
        "loop.steps": _STEPS,
        "loop.read_every": 10,
        "loop.checkpoint_every": _STEPS,
        "loop.validate_every": 25,
        "loop.optimiser.schedule": "constant",
    }
    settings = read_settings(CONFIG, changes)
    training = prepare(settings, str(train), out / "run", Ranks(), str(held_out)).training()
    began = time.monotonic()
    steps = training.run(stop=lambda: time.monotonic() - began > seconds)
    took = time.monotonic() - began
    averages = adapter_of(last_checkpoint(out / "run"), averaged=True)
    training.recipe.load_adapter(training.module, averages)
    sampling = PictureSampling(steps=20, guidance=2.0)
    shown = PictureSettings(people=_SHOWN, sampling=sampling)
    pictures = ValidationPictures(training.recipe, training.validation[0], out / "pictures", shown)
    grid = pictures(training.module, steps)["pictures/last"]
    found = _read(out / "run", ShortRun(groups, held, steps, round(took, 1), [], [], 0.0, 0.0, str(grid)))
    done.write_text(json.dumps(asdict(found)) + "\n")
    return found


def _read(run: Path, started: ShortRun) -> ShortRun:
    """With what the metrics say; rates are those of the reads after the first, which warms up."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line for line in lines if "samples_per_s" in line][1:]
    return replace(
        started,
        losses=[line["loss"] for line in lines if "loss" in line],
        validation=[(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line],
        samples_per_s=_mean([line["samples_per_s"] for line in rates]),
        data_wait=_mean([line["data_wait"] for line in rates]),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _split(shards: Path, held_out: Path, train: Path) -> tuple[int, int]:
    """Cuts the dataset in two, with nobody in both; how many groups are in the first and the second."""
    folder = DatasetFolder(str(shards))
    by_identity: dict[str, list[str]] = {}
    for number in range(len(folder)):
        key = folder.index.key(number)
        by_identity.setdefault(key.rpartition("-")[0], []).append(key)
    chosen: list[str] = []
    for identity in sorted(by_identity):
        if len(chosen) < _BATCH:
            chosen += by_identity[identity]
    if min(len(chosen), len(folder) - len(chosen)) < _BATCH:
        raise ValueError(f"{len(folder)} groups are too few to train on some and look at {_BATCH} others")
    if not (train / "dataset.json").exists():
        shutil.rmtree(held_out, ignore_errors=True)  # of a start that was killed
        split_by_keys(str(shards), [str(held_out), str(train)], chosen)
    return len(folder) - len(chosen), len(chosen)
