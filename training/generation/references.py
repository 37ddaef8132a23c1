"""Reference photos → the fields of a recipe that are made from references, as training makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shards.decode import cut_of, place
from shards.facets import REGION_NAMES
from training.batch import Field
from training.models.region_crops import REGION_LABELS, cut_regions

RegionChoice = Mapping[str, int | None]
"""{region: number of the photo to take it from, or None for the photo that shows most of it}."""


@dataclass(frozen=True)
class LabelledPhoto:
    """photo uint8 [h, w, 3] RGB, upright; labels uint8 [h, w], ATR labels of one person, 0 elsewhere."""

    photo: np.ndarray
    labels: np.ndarray


def reference_fields(
    fields: Sequence[Field], photos: Sequence[LabelledPhoto], regions: RegionChoice | Sequence[str]
) -> dict[str, Tensor]:
    """One reference: those of `fields` that are made from references, with a batch of 1.

    Raises ValueError, one line, for an unknown region, and where no photo shows any that is asked for.
    """
    chosen = regions if isinstance(regions, Mapping) else dict.fromkeys(regions)
    sources = _sources(photos, chosen)
    made: dict[str, Tensor] = {}
    for field in fields:
        if field.name == "crops":
            crops, visible = _crops(photos, sources, field.shape[1])
            made["crops"], made["visible"] = crops[None], visible[None]
        elif field.name == "reference":
            photo = photos[min(sources.values())].photo
            square = np.empty(field.shape, np.uint8)
            place(photo, square, cut_of(photo.shape[1], photo.shape[0], square.shape[:2], "cover"))
            made["reference"] = torch.from_numpy(square)[None]
    return made


def _sources(photos: Sequence[LabelledPhoto], chosen: RegionChoice) -> dict[str, int]:
    """{region that is taken: number of its photo}."""
    found = {}
    for name, number in chosen.items():
        if name not in REGION_NAMES:
            raise ValueError(f"unknown region {name!r}: there are {', '.join(REGION_NAMES)}")
        if number is not None and not 0 <= number < len(photos):
            raise ValueError(f"region {name}: there is no photo {number}; the first of {len(photos)} is 0")
        pixels = [np.isin(photo.labels, REGION_LABELS[name]).sum() for photo in photos]
        best = int(np.argmax(pixels)) if number is None else number
        if pixels[best]:
            found[name] = best
        elif number is not None:
            raise ValueError(f"region {name}: photo {number} does not show it")
    if not found:
        raise ValueError(f"none of {', '.join(chosen)} is visible in the {len(photos)} photos")
    return found


def _crops(
    photos: Sequence[LabelledPhoto], sources: Mapping[str, int], size_px: int
) -> tuple[Tensor, Tensor]:
    """uint8 [5, px, px, 3] and bool [5]: each region from its photo."""
    cut = {
        number: cut_regions(photos[number].photo, photos[number].labels, size_px)
        for number in sources.values()
    }
    crops = np.zeros((len(REGION_NAMES), size_px, size_px, 3), np.uint8)
    visible = np.zeros(len(REGION_NAMES), bool)
    for name, number in sources.items():
        place = REGION_NAMES.index(name)
        crops[place], visible[place] = cut[number][0][place], cut[number][1][place]
    return torch.from_numpy(crops), torch.from_numpy(visible)
