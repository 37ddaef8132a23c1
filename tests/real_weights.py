"""Where real weights and photos lie on machines that have them; tests that need them skip elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.models import Model, Models

REAL = Path(__file__).parents[2] / "shared" / "real"


def real_models(**files: str) -> Models:
    """{card name: model} of files in the folder `models`; skips the test where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real weights on this machine: {REAL} is absent")
    return {name: model_at(REAL / "models" / file, name) for name, file in files.items()}


def model_at(path: Path, name: str = "weights") -> Model:
    """Weights that a test holds on disk, as a backend is given them."""
    return Model(name, str(path), "0" * 64, "test")


def photo_at(path: Path) -> np.ndarray:
    """An upright RGB photo, read-only as the stages hand it to backends."""
    photo = np.array(Image.open(path).convert("RGB"))
    photo.flags.writeable = False
    return photo
