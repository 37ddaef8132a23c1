"""Bases: one file a pretrained model that pictures are made with. `base_class` finds one by its name and
imports no other."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names are checked before torch is imported
    from training.bases.base import Base

# name: module:class. A base is added here and nowhere else.
BASES = {
    "flux2": "training.bases.flux2:Flux2",
    "sdxl": "training.bases.sdxl:Sdxl",
}


def base_class(name: str) -> "type[Base]":
    """The class behind a name of `BASES`."""
    module, _, found = BASES[name].partition(":")
    kind: type[Base] = getattr(import_module(module), found)
    return kind
