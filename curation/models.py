"""Finds the weights that a pipeline names, hashes them, and refuses what the licence forbids."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from curation.errors import ConfigError
from curation.settings import PipelineSettings
from curation.settings.base import Settings, model_names
from curation.settings.source import ModelCard
from shards.format.atomic_file import write_whole

_REMEMBERED_BYTES = 2**26  # of a file; smaller ones take no time
_SETTLED_NS = 2 * 10**9


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


def check_licences(pipeline: PipelineSettings) -> None:
    """Refuses cards whose licence does not permit commercial use. Raises ConfigError."""
    for path, name in model_names(pipeline):
        card = pipeline.models.cards[name]
        if not card.commercial:
            raise ConfigError(f"--commercial: {path}: '{name}' is under {card.licence}")


def find_models(pipeline: PipelineSettings, commercial: bool = False, pull: str | None = None) -> Models:
    """Every model card that the pipeline uses, found and hashed. Raises ConfigError.

    With `commercial`, cards whose licence does not permit commercial use are refused. `pull` is the command
    that fetches what is missing, for the message.
    """
    if commercial:  # first of all: nobody should fetch weights to learn that they may not be used
        check_licences(pipeline)
    folders = model_folders(pipeline)
    missing = {
        name: path
        for path, name in reversed(model_names(pipeline))
        if find_file(pipeline.models.cards[name], folders) is None
    }
    if missing and pull is not None:
        looked = ", ".join(str(folder) for folder in folders)
        named = ", ".join(
            f"{pipeline.models.cards[name].file} of {missing[name]}" for name in reversed(missing)
        )
        raise ConfigError(f"weights not found in {looked}: {named}; `{pull}` fetches them")
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
    file = find_file(card, folders)
    if file is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise ConfigError(
            f"{path}: weights of '{name}' not found: {card.file} is not in {looked}; "
            f"`persona models pull` fetches it from {card.source}, or set models.path"
        )
    digest = known_sha256(file)
    if not card.permits(digest):
        said = " or ".join(card.stated)
        raise ConfigError(
            f"models.cards.{name}.sha256: {file} has {digest}, the card (or models.lock) says {said}"
        )
    return Model(name, str(file.absolute()), digest, card.licence)


def find_file(card: ModelCard, folders: Sequence[Path]) -> Path | None:
    """The file or folder of a card, in the first folder that has it. A folder without a file is not there."""
    places = (folder / card.file for folder in folders)
    return next((place for place in places if place.is_file() or _has_files(place)), None)


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def known_sha256(path: Path) -> str:
    """`sha256_of`, remembered of large files: as long as device, inode, size and times are the same.

    Sizes and times are those before it was read. What was changed less than two seconds ago is not
    remembered: a change within one tick of the clock shows in none of them.
    """
    if path.is_dir():
        return _over_files(path, known_sha256)
    with path.open("rb") as stream:
        return _known_digest(path, stream)


def _known_digest(path: Path, stream: BufferedReader) -> str:
    about = os.fstat(stream.fileno())  # of what is read: a link may lead elsewhere a moment later
    if about.st_size < _REMEMBERED_BYTES:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    stated = [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    place = Path("~/.cache/persona/hashes").expanduser()
    memory = place / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    try:
        known = json.loads(memory.read_bytes())
        if known["of"] == stated:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing is known of it, or nothing that can be read
    is_old = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _SETTLED_NS
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if is_old:
        with contextlib.suppress(OSError):  # a home that cannot be written to, or is full
            place.mkdir(parents=True, exist_ok=True)
            write_whole(memory, json.dumps({"of": stated, "sha256": digest}).encode())
    return digest


def sha256_of(path: Path) -> str:
    """The sha256 of a file; of a folder over the names and hashes of its files."""
    if path.is_dir():
        return _over_files(path, sha256_of)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _over_files(folder: Path, hashed: Callable[[Path], str]) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {hashed(file)}\n".encode())
    return digest.hexdigest()


def list_models(pipeline: PipelineSettings) -> list[dict[str, str | None]]:
    """Each model card that the pipeline uses and where its weights lie, `path` None where nowhere.

    `state` is missing, pulled, or pinned: its card or models.lock states the sha256 that it must have.
    """
    rows = {}
    for key, name in model_names(pipeline):
        card = pipeline.models.cards[name]
        file = find_file(card, model_folders(pipeline))
        rows[name] = {
            "name": name,
            "state": "missing" if file is None else "pinned" if card.stated else "pulled",
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
