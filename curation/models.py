"""Finds the weights that a pipeline names, hashes them, and refuses what the licence forbids."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import ConfigError
from curation.settings import PipelineSettings
from curation.settings.base import Settings, model_names


@dataclass(frozen=True)
class Model:
    """Weights on disk. `sha256` is that of the file, or over names and hashes of a folder's files."""

    name: str
    path: str
    sha256: str
    licence: str

    @property
    def revision(self) -> str:
        """`name@` and the first 12 digits of the hash: what decisions are stamped with."""
        return f"{self.name}@{self.sha256[:12]}"


Models = dict[str, Model]


def used_models(settings: Settings, models: Mapping[str, Model]) -> Models:
    """The models that settings name, by card name."""
    return {name: models[name] for _, name in model_names(settings)}


def model_folders(pipeline: PipelineSettings) -> list[Path]:
    """Where weights are looked up, in this order."""
    places = [pipeline.models.path, os.environ.get("PERSONA_MODELS")]
    return [Path(place).expanduser() for place in places if place] + [
        Path("~/.cache/persona/models").expanduser()
    ]


def find_models(pipeline: PipelineSettings, commercial: bool = False) -> Models:
    """Every model card that the pipeline uses, found and hashed. Raises ConfigError.

    With `commercial`, cards and backends whose licence does not permit commercial use are refused.
    """
    # First of all: nobody should fetch weights to learn that they may not be used.
    for path, name in model_names(pipeline):
        card = pipeline.models.cards[name]
        if commercial and not card.commercial:
            raise ConfigError(f"--commercial: {path}: '{name}' is under {card.licence}")
    found: Models = {}
    for path, name in model_names(pipeline):
        if name in found:
            continue
        found[name] = find_model(pipeline, path, name)
    return found


def find_model(pipeline: PipelineSettings, path: str, name: str) -> Model:
    """One model card, named by the key `path`, found and hashed. Raises ConfigError."""
    card = pipeline.models.cards[name]
    folders = model_folders(pipeline)
    file = next((f / card.file for f in folders if (f / card.file).exists()), None)
    if file is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise ConfigError(
            f"{path}: weights of '{name}' not found: {card.file} is not in {looked}; "
            f"get it from {card.source} or set models.path"
        )
    digest = _sha256(file)
    if card.sha256 and digest != card.sha256:
        raise ConfigError(f"models.cards.{name}.sha256: {file} has {digest}, the card says {card.sha256}")
    return Model(name, str(file.absolute()), digest, card.licence)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()} {_sha256(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def list_models(pipeline: PipelineSettings) -> list[dict[str, str | None]]:
    """Each model card that the pipeline uses and where its weights lie, `path` None where nowhere."""
    rows = {}
    for key, name in model_names(pipeline):
        card = pipeline.models.cards[name]
        file = next((f / card.file for f in model_folders(pipeline) if (f / card.file).exists()), None)
        rows[name] = {
            "name": name,
            "used_by": key,
            "path": None if file is None else str(file),
            "licence": card.licence,
            "file": card.file,
            "source": card.source,
        }
    return list(rows.values())


def torch_device() -> Any:
    """The device, with torch's threads set to the worker's share."""
    import torch

    torch.set_num_threads(int(os.environ.get("PERSONA_THREADS", "1")))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
