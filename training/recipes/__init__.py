"""Recipes: one file a method. `recipe_of` finds one by its name and imports no other."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from training.recipes.recipe import Recipe

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
        raise ValueError(f"unknown recipe {name!r}: there are {', '.join(sorted(CATALOGUE))}")
    module, recipe, kind = CATALOGUE[name]
    code = import_module(module)
    try:
        read = getattr(code, kind).model_validate(dict(settings))
    except ValueError as error:
        fault = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"recipe {name}: {where + ': ' if where else ''}{fault['msg']}") from None
    return getattr(code, recipe)(read)
