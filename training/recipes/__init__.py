"""Recipes: one file a method. `recipe_of` puts one on its base by their names, and imports no other."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import Field, create_model

from edges.settings_reader import validated
from training.bases import BASES, base_class
from training.bases.base import Base
from training.recipes.recipe import Recipe
from training.settings import Settings, or_nearest

# name: module:class. A method is added here and nowhere else.
CATALOGUE = {
    "visual_persona": "training.recipes.visual_persona:VisualPersona",
    "flux2_reference": "training.recipes.flux2_reference:Flux2Reference",
    "ip_adapter": "training.recipes.ip_adapter:IpAdapter",
}
DEFAULT_BASE = "sdxl"


def recipe_of(name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of that name with these settings, which are the recipe's own, `denoising`, and those of one
    base under the base's name; SDXL where none is named.

    Raises ValueError for an unknown name and for settings that are not its own, with a line for each.
    """
    recipe = recipe_class(name)
    named = [key for key in settings if key in BASES] or [DEFAULT_BASE]
    if len(named) > 1:
        raise ValueError(f"recipe {name}: it stands on one base, and {' and '.join(named)} are named")
    base = base_class(named[0])
    kind = method_settings(recipe, base)
    read = validated(kind, dict(settings), f"recipe {name}")
    try:
        return recipe(read, base(getattr(read, base.name), read.denoising))  # type: ignore[attr-defined]
    except ValueError as error:
        raise ValueError(f"recipe {name}: {error}") from None


def recipe_class(name: str) -> type[Recipe]:
    """The class behind a name of `CATALOGUE`. Raises ValueError, one line, for any other name."""
    if name not in CATALOGUE:
        raise ValueError(f"unknown recipe {name!r}{or_nearest(name, CATALOGUE)}")
    module, _, found = CATALOGUE[name].partition(":")
    kind: type[Recipe] = getattr(import_module(module), found)
    return kind


@cache
def method_settings(recipe: type[Recipe], base: type[Base]) -> type[Settings]:
    """The keys of `method` for a recipe on a base."""
    parts: dict[str, Any] = {
        base.name: (base.kind, Field(default_factory=base.kind)),
        "denoising": (base.denoising_kind, Field(default_factory=base.denoising_kind)),
    }
    return create_model(recipe.kind.__name__, __base__=recipe.kind, **parts)
