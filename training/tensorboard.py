"""Metrics as TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Event files in a folder. What a killed run wrote of steps from `first_step` on is hidden."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=20)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Each value is a curve of its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
