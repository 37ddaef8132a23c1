"""What is wrong with the words of a command, found before torch is imported: a slip costs a second."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from shards.reading.folder import read_dataset_json
from training.recipes import read_method
from training.run_settings import RunSettings, read_settings


def check_run(
    settings: RunSettings, shards: Sequence[str], validation: str | None, out: Path, begun_before: bool = True
) -> None:
    """Raises ValueError, one line, for the first thing that the run cannot do without.

    begun_before   whether `out` may hold a run that goes on: what it has begun with need not be there
    """
    method = read_method(settings.recipe, settings.method)
    loop = settings.loop
    if loop.wandb is not None:
        check_wandb()
    for folder in [*shards, *([validation] if validation is not None else [])]:
        if "://" not in folder:
            read_dataset_json(folder)
    if len(shards) > 1 and settings.data.buckets != "one":
        raise ValueError(
            "data.buckets: several --shards are mixed in one size only, for sizes gather within a dataset: "
            "data.buckets=one, or one dataset of them all (persona shards merge)"
        )
    check_pictures(settings, validation is not None)
    if validation is None and loop.patience is not None:
        raise ValueError("loop.patience: it counts validations: they need --validation DIR")
    checkpoints = loop.checkpoints or out / "checkpoints"
    for place in (out, checkpoints):
        if isinstance(place, Path) or "://" not in place:
            check_writable(Path(place))
    if method is not None:
        for key, folder, hub in _weights(method):
            _check_weights(key, Path(folder), hub)
    # Whether there are any behind a URL is found later, by `prepare`.
    begun = begun_before and ("://" in str(checkpoints) or Path(checkpoints).is_dir())
    start = settings.start_from
    if start is not None and "://" not in start and not begun and not Path(start).exists():
        raise ValueError(f"start_from: {start}: no such file or folder")


def check_pictures(settings: RunSettings, has_validation: bool) -> None:
    """Raises ValueError where pictures are asked for that nobody would draw."""
    fixed, every = settings.pictures.fixed, settings.loop.pictures_every
    if every is not None and not fixed and not has_validation:
        raise ValueError("loop.pictures_every: pictures need --validation DIR, or pictures.fixed")
    if fixed and every is None:
        raise ValueError("pictures.fixed: pictures are drawn every loop.pictures_every steps; none are said")


def shares_of(words: Sequence[str]) -> list[tuple[str, int]]:
    """Datasets with their shares out of the words DIR, DIR=SHARE and DIR/=SHARE; without one the share is 1.

    A folder may be called year=2024: one that is there is meant as it is, and so is a URL, whose share needs
    the slash. Raises ValueError, one line.
    """
    found = []
    for word in words:
        name, equals, share = word.rpartition("=")
        is_share = name.endswith("/") or ("://" not in word and not Path(word).exists())
        if not equals or not is_share or "/" in share:
            found.append((word, 1))
        elif not share.isdecimal() or int(share) < 1:
            raise ValueError(f"--shards {word}: a share is a whole number of at least 1, as {name}=3")
        else:
            found.append((name.removesuffix("/") or name, int(share)))
    twice = [name for name, _ in found if [name for name, _ in found].count(name) > 1]
    if twice:
        raise ValueError(f"--shards {twice[0]}: is named twice")
    return found


def check_checkpoint(place: str) -> None:
    """Raises ValueError, one line, for what is no run with a checkpoint, and no checkpoint itself. Whether
    there are any behind a URL is found later."""
    if "://" in place or Path(place).is_file():
        return
    folder = Path(place)
    if not any((at / "checkpoint.json").is_file() for at in (folder, *folder.glob("checkpoints/step-*"))):
        raise ValueError(f"{place}: no checkpoint and no run with one")


def check_model(checkpoint: str | None, weights: str | None, config: str | None) -> None:
    """Raises ValueError, one line, where the trained model is not there that --checkpoint, or --weights and
    --config, name."""
    if checkpoint is not None:
        if config is not None:
            raise ValueError("--config: a checkpoint says its recipe itself; give it with --weights only")
        check_checkpoint(checkpoint)
    elif weights is not None and not Path(weights).is_file():
        raise ValueError(f"--weights {weights}: no such file")
    if config is not None:
        read_settings(config, {})


def check_wandb() -> None:
    """Raises ValueError, one line, where the package is missing."""
    if find_spec("wandb") is None:
        raise ValueError("loop.wandb: needs the package wandb: pip install wandb")


def check_writable(folder: Path) -> None:
    """Raises ValueError where it cannot be made or written to; nothing of it is left."""
    existing = folder
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with TemporaryDirectory(dir=existing, prefix=".persona-"):
            pass
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to: {existing}: {error.strerror}") from None


def _weights(settings: BaseModel, path: str = "method") -> Iterator[tuple[str, str, str | None]]:
    """(key, folder, repository on the hub that is usual) of each folder of weights that settings name."""
    for name, field in type(settings).model_fields.items():
        value: Any = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _weights(value, f"{path}.{name}")
        elif name.endswith("folder") and isinstance(value, str):
            extra = field.json_schema_extra
            hub = extra.get("hub") if isinstance(extra, dict) else None
            yield f"{path}.{name}", value, hub if isinstance(hub, str) else None


def _check_weights(key: str, folder: Path, hub: str | None) -> None:
    """A model's folder has a config.json, or parts that have one."""
    get = f"; `hf download {hub} --local-dir {folder}` fetches it" if hub is not None else ""
    if not folder.is_dir():
        at = "" if folder.is_absolute() else f" in {Path.cwd()}"
        if models := os.environ.get("PERSONA_MODELS"):
            at += f", and no {folder.name} in {models}"
        raise ValueError(f"{key}: {folder}: no such folder{at}{get}")
    if not any((place / "config.json").is_file() for place in (folder, *folder.iterdir())):
        raise ValueError(f"{key}: {folder}: no config.json: not a model's folder{get}")
