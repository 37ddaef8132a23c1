"""Writes checkpoints without end, for a test that kills it in the middle of one."""

from pathlib import Path

import torch

from training.checkpoint import CheckpointFolder


def write_checkpoints(folder: Path) -> None:
    """Step n is full of the number n. Each is megabytes, so that nearly always one is being written."""
    checkpoints = CheckpointFolder(folder, keep=2)
    for step in range(1, 100_000):
        tensors = {
            part: {"x": torch.full((500_000,), float(step))} for part in ("adapter", "ema", "optimiser")
        }
        checkpoints.save(step, tensors, {"recipe": "none", "batches": {"consumed": step}})
