"""Trains a tiny recipe, in this process or as one rank in a process of its own.

`kill_at` ends the process as a crash would, with no time to say anything, when that many batches have
been asked for.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.drawn_training import DrawnBatches, built, samples, tiny
from training.batch import Batch
from training.generation.validation_pictures import ValidationPictures
from training.loop import Training, Weights
from training.ranks import Ranks, StopSignals, join_ranks
from training.recipes import flux2_reference, ip_adapter, visual_persona  # noqa: F401  imported once, before forking
from training.run_settings import LoopSettings, PictureSampling, PictureSettings
from training.start import compile_blocks

OPTIMISER = {"lr": 1e-3, "warmup_steps": 3, "schedule": "cosine"}
PICTURES = PictureSettings(sampling=PictureSampling(steps=2))
HELD_OUT = ["person-900-a", "person-901-a", "person-902-a", "person-903-a"]  # a part of them each rank


class Killed(DrawnBatches):
    """Batches that end the process."""

    def __init__(self, *args: Any, kill_at: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = kill_at

    def __next__(self) -> Batch:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return super().__next__()


class Slow(DrawnBatches):
    """Batches that take their time."""

    def __init__(self, *args: Any, step_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step_s = step_s

    def __next__(self) -> Batch:
        time.sleep(self._step_s)
        return super().__next__()


def training(
    folder: Path,
    ranks: Ranks,
    *,
    recipe: str = "visual_persona",
    batch: int = 2,
    kill_at: int | None = None,
    tune_unet: bool = False,
    denoising: dict[str, Any] | None = None,
    step_s: float = 0.0,
    backend: str | None = None,
    people: int = 1,
    picture_weights: Sequence[Weights] = ("last",),
    **loop: Any,
) -> Training:
    """A run over drawn people in float32; `loop` are settings of the loop, `step_s` what a batch takes.

    With `pictures_every` it validates and makes pictures of so many `people`; with a `backend` of
    torch.compile the first block of each kind is compiled.
    """
    changes = {**({"tune_unet": True} if tune_unet else {}), **(denoising or {})}
    method = tiny(recipe, denoising=changes)
    module = built(method, seed=5)
    shared: dict[str, Any] = {"rank": ranks.rank, "world": ranks.world}
    batches: DrawnBatches = DrawnBatches(method, batch, **shared)
    if kill_at is not None:
        batches = Killed(method, batch, kill_at=kill_at, **shared)
    elif step_s:
        batches = Slow(method, batch, step_s=step_s, **shared)
    settings = LoopSettings.model_validate({"precision": "fp32", "optimiser": OPTIMISER, **loop})
    held_out, pictures = [], None
    if settings.pictures_every:
        of = slice(ranks.rank * len(HELD_OUT) // ranks.world, (ranks.rank + 1) * len(HELD_OUT) // ranks.world)
        held_out = [samples(method, HELD_OUT[of])]
        shown = PICTURES.model_copy(update={"people": people})
        pictures = ValidationPictures(method, held_out[0], folder / "pictures", shown, ranks=ranks)
    if backend is not None:
        compile_blocks({type(block): block for block in reversed(method.blocks(module))}.values(), backend)
    return Training(
        method, module, batches, settings, folder, ranks, held_out, pictures, picture_weights=picture_weights
    )


def train_in_process(folder: Path, rank: int, world: int, port: int, settings: dict[str, Any]) -> None:
    """One rank, with the variables that torchrun would give it."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with join_ranks(timeout_s=60) as ranks, StopSignals() as stop:
        training(folder, ranks, **settings).run(stop)
