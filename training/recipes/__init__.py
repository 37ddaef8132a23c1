"""Recipes: one file a method. `recipe_of` finds one by its name and imports no other."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from training.recipes.recipe import Recipe
from training.settings import first_fault, or_nearest

# name: (module, recipe, its settings). A method is added here and nowhere else.
CATALOGUE = {
    "visual_persona": ("training.recipes.visual_persona", "VisualPersona", "VisualPersonaSettings"),
    "ip_adapter": ("training.recipes.ip_adapter", "IpAdapter", "IpAdapterSettings"),
}


def recipe_of(name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of that name with these settings.

    Raises ValueError, one line, for an unknown name and for settings that are not its own.
    """
    if name not in CATALOGUE:
        raise ValueError(f"unknown recipe {name!r}{or_nearest(name, CATALOGUE)}")
    module, recipe, kind = CATALOGUE[name]
    code = import_module(module)
    try:
        read = getattr(code, kind).model_validate(dict(settings))
    except ValidationError as error:
        raise ValueError(f"recipe {name}: {first_fault(error, getattr(code, kind))}") from None
    return getattr(code, recipe)(read)
