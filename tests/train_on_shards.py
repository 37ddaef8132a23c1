"""One rank of a tiny training on real shards, in a process of its own."""

import os
from pathlib import Path

from tests.drawn_training import SETTINGS
from training.ranks import join_ranks
from training.run_settings import RunSettings
from training.start import prepare


def train_on_shards(shards: str, out: Path, rank: int, world: int, port: int, batch: int, steps: int) -> None:
    """As `persona train` does, with the variables that torchrun would give it."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    settings = RunSettings.model_validate(
        {
            "recipe": "visual_persona",
            "method": SETTINGS["visual_persona"],
            "data": {"height_px": 64, "width_px": 64, "batch": batch},
            "loop": {"steps": steps, "precision": "fp32"},
            "compile": False,
        }
    )
    with join_ranks(timeout_s=60) as ranks:
        prepare(settings, shards, out, ranks).training().run()
