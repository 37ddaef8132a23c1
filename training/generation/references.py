"""Reference photos → the fields of a recipe that are made from references, as training makes them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from shards.format.contents import REGION_NAMES
from shards.format.label_maps import decode_labels
from shards.format.orientation import orientation_of
from shards.reading.decode import cut_of, decode_photo, place
from shards.reading.folder import DatasetFolder
from shards.reading.photo_batches import picture_of
from training.batch import Field
from training.models.region_crops import GREY, REGION_LABELS, cut_regions, fitting, person_on_grey

RegionChoice = Mapping[str, int | None]
"""{region: number of the photo to take it from, or None for the photo that shows most of it}."""


@dataclass(frozen=True)
class LabelledPhoto:
    """photo uint8 [h, w, 3] RGB, upright; labels uint8 [h, w], ATR labels of one person, 0 elsewhere."""

    photo: np.ndarray
    labels: np.ndarray


class ParsePhotos(Protocol):
    """Finds and parses people on photos; whoever has the models for it gives one to the command."""

    def __call__(self, photos: Sequence[Path]) -> list[LabelledPhoto]:
        """The largest person of each photo. Raises ValueError, one line, where there is none."""
        ...


def reference_fields(
    fields: Sequence[Field], photos: Sequence[LabelledPhoto], regions: RegionChoice | Sequence[str]
) -> dict[str, Tensor]:
    """One reference: those of `fields` that are made from references, with a batch of 1.

    The whole person, where a field is that, is of the first photo that a region is taken from. Where not all
    regions are asked for, or they are of several people, it shows those of that photo alone.

    Raises ValueError, one line, for an unknown region, where no photo shows any that is asked for, and for
    regions of a field that is a whole photo.
    """
    chosen = regions if isinstance(regions, Mapping) else dict.fromkeys(regions)
    sources = _sources(photos, chosen)
    first = min(sources.values())
    names = {field.name for field in fields}
    of_person = photos[first]
    if not _is_whole(chosen, first):
        if "reference" in names or ("photo" in names and "body" not in names):
            raise ValueError(
                f"regions {', '.join(chosen)}: this model reads whole photos, of which none can be chosen: "
                "ask for head, torso, legs and shoes of one person"
            )
        taken = [
            label for name, number in sources.items() if number == first for label in REGION_LABELS[name]
        ]
        labels = np.where(np.isin(of_person.labels, taken), of_person.labels, 0).astype(np.uint8)
        of_person = LabelledPhoto(of_person.photo, labels)
    made: dict[str, Tensor] = {}
    for field in fields:
        if field.name == "crops":
            crops, visible = _crops(photos, sources, field.shape[1])
            made["crops"], made["visible"] = crops[None], visible[None]
        elif field.name in ("body", "photo"):
            picture = np.empty(field.shape, np.uint8)
            size = _whole(of_person, field.name, picture)
            made[field.name] = torch.from_numpy(picture)[None]
            made[f"{field.name}_size"] = torch.tensor([size])
        elif field.name == "reference":
            photo = of_person.photo
            rows, columns, _ = field.shape
            square = np.empty(field.shape, np.uint8)
            place(photo, square, cut_of(photo.shape[1], photo.shape[0], (rows, columns), "cover"))
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


def _is_whole(chosen: RegionChoice, first: int) -> bool:
    """Whether all of a person is asked for, and of one."""
    return are_whole_person(chosen) and set(chosen.values()) <= {None, first}


def are_whole_person(regions: Iterable[str]) -> bool:
    """Whether regions of these names together are all of a person."""
    names = set(regions)
    return "full_body" in names or names >= set(REGION_NAMES) - {"full_body"}


def _whole(shown: LabelledPhoto, which: str, into: np.ndarray) -> tuple[int, int]:
    """The person, or the whole photo, as pair_fields.py has them."""
    if which == "body":
        return person_on_grey(shown.photo, shown.labels, into)
    into[...] = GREY
    rows, columns = shown.photo.shape[:2]
    height, width = fitting(rows, columns, into.shape[:2])
    place(shown.photo, into[:height, :width], cut_of(columns, rows, (height, width), "cover"))
    return height, width


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


def sample_photos(dataset: str, key: str) -> list[LabelledPhoto]:
    """All photos of one sample of a dataset.

    Raises ValueError, one line, where it has no such sample, or one without label maps.
    """
    folder = DatasetFolder(dataset)
    number = next((n for n in range(len(folder)) if folder.index.key(n) == key), None)
    if number is None:
        raise ValueError(f"{dataset}: no sample {key}; the first of {len(folder)} is {folder.index.key(0)}")
    found = photos_of(folder.read(number).members)
    if not found:
        raise ValueError(
            f"{dataset}: sample {key} has no label maps, as datasets that persona did not pack; "
            "give its photos as files (--photo): a pipeline then parses them"
        )
    return found


def photos_of(members: Mapping[str, bytes]) -> list[LabelledPhoto]:
    """The photos of a sample's members, upright, in their order. Raises ValueError or OSError."""
    stems = sorted(name.removesuffix("regions.png") for name in members if name.endswith(".regions.png"))
    found = []
    for stem in stems:
        labels = decode_labels(members[f"{stem}regions.png"])
        photo = np.empty((*labels.shape, 3), np.uint8)
        record = json.loads(members[f"{stem}json"])
        data = picture_of(members, stem)
        decode_photo(data, photo, orientation_of(data, record))
        found.append(LabelledPhoto(photo, labels))
    return found
