"""Settings of training: frozen and strict, read from YAML by the name of a config or by a path."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from edges.settings_reader import SettingsError, read_yaml, set_keys, validated


class Settings(BaseModel):
    """An unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


# YAML and JSON have lists only.
Sizes = Annotated[tuple[int, ...], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]
_Kind = TypeVar("_Kind", bound=Settings)


def named_files(package: str) -> list[str]:
    """Names of a package's YAML files, without their ending."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files(package).iterdir() if file.name.endswith(".yaml")
    )


def read_config(kind: type[_Kind], package: str, config: str, changes: Mapping[str, Any], what: str) -> _Kind:
    """Settings of a kind, with values set at dotted paths.

    package   whose YAML files have names
    what      a word for messages, as config

    Raises ValueError with a line for each problem, which names file, line, key and fault.
    """
    path = Path(config) if config.endswith((".yaml", ".yml")) else None
    if path is None and config not in named_files(package):
        known = or_nearest(config, named_files(package))
        raise ValueError(f"unknown {what} {config!r}{known} (or a path to a .yaml)")
    try:
        text = path.read_text() if path else (files(package) / f"{config}.yaml").read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{config}: {str(error).splitlines()[0]}") from None
    given, lines = read_yaml(text, config)
    if not isinstance(given, dict):
        raise SettingsError(f"{config}: must be a mapping with the keys {', '.join(kind.model_fields)}")
    set_keys(given, changes)
    return validated(kind, given, config, lines, changed=list(changes))


def chosen_config(name: str | None, recipe: str | None, config: str | None, known: Sequence[str]) -> str:
    """The config's name or path out of `persona train [NAME] [--recipe RECIPE] [--config CONFIG]`.

    `--recipe visual_persona --config demo` is the config visual_persona_demo. A path, or a whole name, stays
    what it is, and must then be of that recipe (`check_recipe`). Raises ValueError, one line.
    """
    if name is not None and config is not None:
        raise ValueError(f"two configs are named, {name} and --config {config}: one is meant")
    wanted = config if name is None else name
    of_recipe = [k.removeprefix(f"{recipe}_") for k in known if recipe and k.startswith(f"{recipe}_")]
    if wanted is None:
        some = f"--config {' or '.join(of_recipe)}" if of_recipe else ", ".join(known)
        raise ValueError(f"name a config: {some}, or a path to a .yaml")
    if recipe is None or wanted in known or wanted.endswith((".yaml", ".yml")):
        return wanted
    if wanted in of_recipe:
        return f"{recipe}_{wanted}"
    raise ValueError(
        f"no config {wanted!r} for the recipe {recipe!r}{or_nearest(wanted, of_recipe or known)}"
    )


def check_recipe(found: str, recipe: str | None, config: str) -> None:
    """Raises ValueError, one line, where a config is of another recipe than `--recipe` says."""
    if recipe is not None and found != recipe:
        raise ValueError(f"{config} is a config of the recipe {found}, not of {recipe}")


def or_nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest one, or all that there are."""
    names = sorted(known)
    nearest = get_close_matches(name, names, 1)
    return f"; did you mean {nearest[0]}?" if nearest else f": there are {', '.join(names)}"
