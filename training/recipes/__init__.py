"""Recipes: one file a method. `recipe_of` puts one on its base by their names, and imports no other.

A recipe that is not of this repository is named by its import path, `package.module:Class`.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edges.import_path import imported
from edges.settings_reader import validated
from training.bases import BASES, base_class
from training.method_settings import BASE_SETTINGS, RECIPE_SETTINGS, method_settings
from training.settings import Settings, or_nearest

if TYPE_CHECKING:  # names and settings are checked before torch is imported
    from training.recipes.recipe import Recipe

# name: module:class. A method is added here and nowhere else.
CATALOGUE = {
    "visual_persona": "training.recipes.visual_persona:VisualPersona",
    "flux2_reference": "training.recipes.flux2_reference:Flux2Reference",
    "ip_adapter": "training.recipes.ip_adapter:IpAdapter",
}
DEFAULT_BASE = "sdxl"
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def recipe_of(name: str, settings: Mapping[str, Any]) -> "Recipe":
    """The recipe of that name with these settings, which are the recipe's own, `denoising`, and those of one
    base under the base's name; SDXL where none is named.

    Raises ValueError for an unknown name and for settings that are not its own, with a line for each.
    """
    recipe, base = recipe_class(name), base_class(_base_of(name, settings))
    kind = method_settings(recipe.kind, base.name, base.kind, base.denoising_kind)
    read = validated(kind, dict(settings), f"recipe {name}")
    try:
        made = recipe(read, base(getattr(read, base.name), read.denoising))  # type: ignore[attr-defined]
    except ValueError as error:
        raise ValueError(f"recipe {name}: {error}") from None
    made.name = name  # what a checkpoint states, and the recipe is found by again
    return made


def read_method(name: str, settings: Mapping[str, Any]) -> Settings | None:
    """The settings of `recipe_of`, with nothing imported but settings: None where those of the recipe or its
    base are not in method_settings.py, and only `recipe_of` can read them. Raises ValueError as it does."""
    _check_name(name)
    base = _base_of(name, settings)
    if name not in RECIPE_SETTINGS or base not in BASE_SETTINGS:
        return None
    kind = method_settings(RECIPE_SETTINGS[name], base, *BASE_SETTINGS[base])
    return validated(kind, dict(settings), f"recipe {name}")


def recipe_class(name: str) -> "type[Recipe]":
    """The class behind a name of `CATALOGUE`, or behind an import path. Raises ValueError, one line, for any
    other name, and for a path that leads to no recipe."""
    _check_name(name)
    try:
        kind: type[Any] = imported(CATALOGUE.get(name, name))
    except ImportError as error:
        raise ValueError(f"recipe {name}: {error}") from error
    from training.recipes import recipe as base  # here: with torch, which the recipe has imported by now

    if not (isinstance(kind, type) and issubclass(kind, base.Recipe)):
        raise ValueError(f"recipe {name}: is no class derived from training.recipes.recipe.Recipe")
    if not hasattr(kind, "kind"):
        raise ValueError(f"recipe {name}: has no `kind`, the class of its settings")
    if lacking := getattr(kind, "__abstractmethods__", None):
        raise ValueError(f"recipe {name}: lacks {', '.join(sorted(lacking))}")
    return kind


def _check_name(name: str) -> None:
    if name not in CATALOGUE and not _IMPORT_PATH.fullmatch(name):
        raise ValueError(f"unknown recipe {name!r}{or_nearest(name, CATALOGUE)}")


def _base_of(name: str, settings: Mapping[str, Any]) -> str:
    named = [key for key in settings if key in BASES] or [DEFAULT_BASE]
    if len(named) > 1:
        raise ValueError(f"recipe {name}: it stands on one base, and {' and '.join(named)} are named")
    return named[0]
