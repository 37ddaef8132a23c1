"""The reader of a checkpoint's record, beside tensors that are whole."""

import atexit
import shutil
import tempfile
from pathlib import Path

import torch

from training.checkpoint import CheckpointError, CheckpointFolder, load_checkpoint

MODULES = ("training.checkpoint", "json.decoder")
_FOLDER = Path(tempfile.mkdtemp(prefix="persona-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def _written() -> Path:
    folder = _FOLDER / "step-00000001"
    if not folder.exists():
        checkpoints = CheckpointFolder(_FOLDER)
        checkpoints.save(1, {"adapter": {"x": torch.ones(2)}, "ema": {}}, {"batches": {"consumed": 1}})
        checkpoints.close()
    return folder


def seeds() -> list[bytes]:
    """A record as it is written."""
    return [(_written() / "checkpoint.json").read_bytes(), b"[" * 3000]


def parse(data: bytes) -> None:
    """A checkpoint or CheckpointError."""
    folder = _written()
    (folder / "checkpoint.json").write_bytes(data)
    try:
        load_checkpoint(folder)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
