"""Settings out of YAML: by the name of a file that comes with the project, or by a path."""

from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from training.settings import Settings, first_fault, or_nearest

_Kind = TypeVar("_Kind", bound=Settings)


def named_files(package: str) -> list[str]:
    """Names of a package's YAML files, without their ending."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files(package).iterdir() if file.name.endswith(".yaml")
    )


def read_config(kind: type[_Kind], package: str, config: str, changes: dict[str, Any], what: str) -> _Kind:
    """Settings of a kind, with values set at dotted paths.

    package   whose YAML files have names
    what      a word for messages, as config

    Raises ValueError, one line, which names file, key and fault.
    """
    path = Path(config) if config.endswith((".yaml", ".yml")) else None
    if path is None and config not in named_files(package):
        known = or_nearest(config, named_files(package))
        raise ValueError(f"unknown {what} {config!r}{known} (or a path to a .yaml)")
    try:
        text = path.read_text() if path else (files(package) / f"{config}.yaml").read_text()
        given = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{config}: {str(error).splitlines()[0]}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{config}: must be a mapping with the keys {', '.join(kind.model_fields)}")
    for place, value in changes.items():
        at = given
        *parents, last = place.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"{config}: {parent} of {place} holds a value, no keys")
        at[last] = value
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{config}: {first_fault(error, kind)}") from None
