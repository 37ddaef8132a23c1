"""The rendered world. `make_world` plans a collection, `render` draws a photo of it with its truth."""

from demo.world.facts import FACTS, caption_of
from demo.world.outfits import Garment, Outfit, bareheaded, in_a_hat, make_outfits
from demo.world.plan import PhotoPlan, World, make_world, snapshot
from demo.world.render import PersonTruth, Rendered, render
from demo.world.traits import Identity, look_alike, make_identity

__all__ = [
    "FACTS",
    "Garment",
    "Identity",
    "Outfit",
    "PersonTruth",
    "PhotoPlan",
    "Rendered",
    "World",
    "bareheaded",
    "caption_of",
    "in_a_hat",
    "look_alike",
    "make_identity",
    "make_outfits",
    "make_world",
    "render",
    "snapshot",
]
