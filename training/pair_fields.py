"""From a pair of photos out of the shards to the fields that a recipe asks for.

A decoder for `shards.reading.loader.Loader`: it runs on the loader's threads and makes what is asked for, no
more. Names of fields and what they hold:

    crops, visible   the reference's body regions and which are there (models/region_crops.py)
    reference        the reference, its middle square
    body, body_size  the reference's person cut out on grey, as large as fits from the upper left corner on,
                     and height and width of its box there, px; 0 where there is nobody
    photo, photo_size   the same of the whole reference
    target           the target, cut to the size of the batch
    target_latents   what a VAE gave for that (latents.py); the target is not decoded then
    target_cut       how the target was cut: size of its photo, what the cut left out above and left in px
                     of the resized photo, size of the batch; height before width
    caption_ids      the target's caption, as the base's tokeniser has it
    person           share of the person's pixels in each latent pixel of the target
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import orjson
import torch

from shards.format.label_maps import decode_labels
from shards.format.members import IMAGE_SUFFIXES
from shards.format.orientation import orientation_of
from shards.reading.buckets import Size
from shards.reading.decode import Box, Cut, cut_of, decode_photo, place
from shards.reading.pairs import Pair
from shards.reading.photo_batches import BatchMemory, Memory, picture_of
from shards.reading.source import SkippedSampleError
from training.batch import Field
from training.captions import Tokenise
from training.latents import MEMBER, unpack_latent
from training.models.region_crops import GREY, REGION_LABELS, cut_regions_into, fitting, person_on_grey
from training.randomness import Purpose, streams, uniform

# Which members of its photo each field is made from.
SOURCES: dict[str, tuple[str, ...]] = {
    "crops": ("json", "regions.png", *IMAGE_SUFFIXES),
    "visible": ("json", "regions.png"),
    "reference": ("json", *IMAGE_SUFFIXES),
    "body": ("json", "regions.png", *IMAGE_SUFFIXES),
    "body_size": ("json", "regions.png", *IMAGE_SUFFIXES),
    "photo": ("json", *IMAGE_SUFFIXES),
    "photo_size": ("json", *IMAGE_SUFFIXES),
    "target": ("json", *IMAGE_SUFFIXES),
    "target_latents": ("json", MEMBER),
    "target_cut": ("json",),
    "caption_ids": ("json",),
    "person": ("json", "regions.png"),
}
OF_REFERENCE = ("crops", "visible", "reference", "body", "body_size", "photo", "photo_size")

# Of each label: whether it is the person. (cv2.LUT is four times as fast as an index of numpy.)
_BODY = np.zeros(256, np.float32)
_BODY[list(REGION_LABELS["full_body"])] = 1
_BODY_BYTES = _BODY.astype(np.uint8)


_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


@dataclass(frozen=True)
class Jitter:
    """What is drawn for a sample besides its pair, by its seed, epoch and key; nothing by default.

    flip     share of photos that are mirrored, each of a pair by itself. A target whose caption has the words
             left or right is not
    crop     of a target's sides at most so much is cut off besides, anywhere
    colour   brightness and colourfulness change by at most this share, alike in both photos: clothes keep
             their colour from one to the other, and what is black stays black
    """

    flip: float = 0.0
    crop: float = 0.0
    colour: float = 0.0

    def draw(self, pair: Pair) -> "Drawn":
        """For one pair."""
        if not max(self.flip, self.crop, self.colour):
            return Drawn()
        stream = streams(pair.seed, pair.epoch, [pair.key])
        flips = (uniform(stream, Purpose.FLIP, 2)[0] < self.flip).tolist() if self.flip else [False, False]
        crop = uniform(stream, Purpose.CROP, 3)[0].tolist() if self.crop else None
        colours = None
        if self.colour:
            up, colourful = (1 + self.colour * (2 * uniform(stream, Purpose.COLOUR, 2)[0] - 1)).tolist()
            colours = (up * (colourful * np.eye(3) + (1 - colourful) * _GREY)).astype(np.float32)
        zoom = None if crop is None else (1 - self.crop * crop[0], crop[1], crop[2])
        return Drawn(flips[0], flips[1], zoom, colours)


# Luma of an RGB pixel, in each of its channels (Rec. 601).
_GREY = np.tile(np.array([0.299, 0.587, 0.114]), (3, 1))


class Drawn(NamedTuple):
    """What was drawn for one pair.

    zoom      share of the sides that is kept, and where it lies, 0 to 1 from the left and from above
    colours   float32 [3, 3], by which every RGB pixel is multiplied
    """

    flips_reference: bool = False
    flips_target: bool = False
    zoom: tuple[float, float, float] | None = None
    colours: np.ndarray | None = None


class Members(NamedTuple):
    """Members of a pair's two photos that are read."""

    reference: tuple[str, ...]
    target: tuple[str, ...]


def members_for(fields: Sequence[Field], *, reconstruct: bool = False) -> Members:
    """What these fields need; `reconstruct`: of a target that may be its own reference too.

    Raises ValueError, one line, for a field with no source.
    """
    of: dict[bool, set[str]] = {True: set(), False: set()}
    for field in fields:
        if field.name not in SOURCES:
            raise ValueError(f"the field {field.name} cannot be made from photos: {', '.join(SOURCES)} can")
        is_of_reference = field.name in OF_REFERENCE
        of[is_of_reference].update(SOURCES[field.name])
        if is_of_reference and reconstruct:
            of[False].update(SOURCES[field.name])
    return Members(tuple(sorted(of[True])), tuple(sorted(of[False])))


class PairFields:
    """Decodes pairs into fields.

    fields          as the recipe states them for targets of `size`
    size            height and width, px
    tokenise        of captions; a photo without one has the empty caption
    left_out        keys of samples that are skipped
    jitter          what is drawn for a sample besides; of validation: nothing
    min_target_px   targets whose part of the photo has a shorter side are skipped
    reference_px    the reference's body is decoded with at most so many px along its longer side
    """

    def __init__(
        self,
        fields: Sequence[Field],
        tokenise: Tokenise,
        size: Size,
        *,
        left_out: Container[str] = (),
        jitter: Jitter | None = None,
        min_target_px: int | None = None,
        reference_px: int = 1536,
        memory: Memory | None = None,
    ) -> None:
        members_for(fields)
        self._fields = {field.name: field for field in fields}
        self._tokenise, self._size, self._reference_px = tokenise, size, reference_px
        self._left_out = left_out
        self._jitter, self._min_target_px = jitter or Jitter(), min_target_px
        self._memory = memory or BatchMemory()
        cv2.setNumThreads(1)  # the loader has threads enough

    def allocate(self, batch: int) -> dict[str, Any]:
        """The fields as arrays; keys, and tally (a name of TALLIED), as lists [batch]. Slots that are never
        filled must not do harm: pictures may hold anything, numbers and ids are 0."""
        arrays: dict[str, Any] = {"keys": [None] * batch, "tally": [None] * batch}
        for name, field in self._fields.items():
            dtype = torch.empty(0, dtype=field.dtype).numpy().dtype
            array = self._memory.take((batch, *field.shape), dtype)
            if dtype != np.uint8:
                array[...] = 0
            arrays[name] = array
        return arrays

    def decode(self, sample: Pair, arrays: dict[str, Any], slot: int) -> None:
        """Fills a slot. Raises ValueError or OSError where a photo is broken, SkippedSampleError for what is
        left out."""
        if sample.key in self._left_out:
            raise SkippedSampleError(f"{sample.key} is left out")
        arrays["keys"][slot] = sample.key
        drawn = self._jitter.draw(sample)
        target = _Photo(sample.members, sample.target, drawn.colours)
        # Of a reconstruction both are one photo.
        of_one = sample.reference == sample.target and not drawn.flips_reference
        reference = target if of_one else _Photo(sample.members, sample.reference, drawn.colours)
        reference.mirrored = drawn.flips_reference
        self._fill_reference(reference, arrays, slot)
        if "caption_ids" in self._fields:
            arrays["caption_ids"][slot] = self._tokenise(target.record.get("caption") or "")
        target.mirrored = drawn.flips_target and not _SIDES.search(target.record.get("caption") or "")
        cut = self._fill_target(target, drawn.zoom, arrays, slot)
        if cut is None:
            return
        *_, right, low = cut.target  # the target fills its slot
        if "target_cut" in self._fields:
            _, _, left, top = cut.affine()
            if target.mirrored:  # what was cut off on the right is now on the left
                left = right - left - cut.affine()[0] * cut.size[0]
            arrays["target_cut"][slot] = (*cut.size[::-1], max(-top, 0), max(-left, 0), low, right)
        if "person" in self._fields:
            share = _share(target, cut, low, right, arrays["person"].shape[2:])
            arrays["person"][slot, 0] = share[:, ::-1] if target.mirrored else share

    def _fill_target(
        self, photo: "_Photo", zoom: tuple[float, float, float] | None, arrays: dict[str, Any], slot: int
    ) -> Cut | None:
        """The target's picture or its latent; returns how it was cut, of the photo as it is, not mirrored.

        Raises SkippedSampleError where that is too small a part.
        """
        height, width = self._size
        if "target" in self._fields:
            box = None if zoom is None else _zoomed(*photo.size, *zoom)
            self._check_size(cut_of(*photo.size, self._size, "cover", box), arrays, slot)
            return photo.decode(arrays["target"][slot], box)
        if "target_latents" not in self._fields:
            return None
        source = photo.latent(arrays["target_latents"][slot])
        cut = Cut(photo.size, source, (0, 0, width, height))
        self._check_size(cut, arrays, slot)
        return cut

    def _check_size(self, cut: Cut, arrays: dict[str, Any], slot: int) -> None:
        x0, y0, x1, y1 = cut.source
        shorter = min(x1 - x0, y1 - y0)
        if self._min_target_px is not None and round(shorter) < self._min_target_px:
            arrays["tally"][slot] = "too_small"
            raise SkippedSampleError(f"{arrays['keys'][slot]}: a target of {shorter:.0f} px")
        if max(cut.affine()[:2]) > 1.001:  # cuts are of whole pixels, or nearly
            arrays["tally"][slot] = "upscaled"

    def _fill_reference(self, photo: "_Photo", arrays: dict[str, Any], slot: int) -> None:
        if "reference" in self._fields:
            photo.decode(arrays["reference"][slot])
        if "crops" in self._fields or "body" in self._fields:
            picture, labels = photo.body(self._reference_px)
            if "crops" in self._fields:
                cut_regions_into(picture, labels, arrays["crops"][slot], arrays["visible"][slot])
            if "body" in self._fields:
                arrays["body_size"][slot] = person_on_grey(picture, labels, arrays["body"][slot])
        if "photo" in self._fields:
            into = arrays["photo"][slot]
            into[...] = GREY
            height, width = fitting(photo.size[1], photo.size[0], into.shape[:2])
            photo.decode(into[:height, :width])
            arrays["photo_size"][slot] = height, width


class _Photo:
    """One photo of a group; each part of it is read when it is asked for.

    colours    by which its pixels are multiplied; None: they are as they are
    mirrored   whether pictures and labels come out mirrored; cuts are of the photo as it is
    """

    def __init__(self, members: Mapping[str, bytes], number: int, colours: np.ndarray | None = None) -> None:
        self._members, self._stem, self._colours = members, f"{number:03d}.", colours
        self.mirrored = False

    @cached_property
    def data(self) -> bytes:
        return picture_of(self._members, self._stem)

    @cached_property
    def record(self) -> dict[str, Any]:
        found = orjson.loads(self._member("json"))
        if not isinstance(found, dict):
            raise ValueError(f"{self._stem}json is no record")
        return found

    @property
    def orientation(self) -> int:
        return orientation_of(self.data, self.record)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright photo, as its record says."""
        return int(self.record["width"]), int(self.record["height"])

    def decode(self, into: np.ndarray, box: Box | None = None) -> Cut:
        """Fills uint8 [h, w, 3] with the photo, or a box of it."""
        cut = decode_photo(self.data, into, self.orientation, "cover", box)
        self._change(into)
        return cut

    def _change(self, picture: np.ndarray) -> None:
        if self._colours is not None:
            picture[...] = cv2.transform(picture, self._colours)
        if self.mirrored:
            picture[...] = cv2.flip(picture, 1)

    def latent(self, moments: np.ndarray) -> Box:
        """Fills float32 [2, C, h, w]; returns the part of the photo that they are of."""
        return unpack_latent(self._member(MEMBER), moments)

    @cached_property
    def labels(self) -> np.ndarray:
        return decode_labels(self._member("regions.png"))

    def body(self, longest_px: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [h, w, 3] and [h, w]: the box of the person's body and its labels; all other regions lie
        in it. 1 × 1 of background where there is no body."""
        x, y, wide, high = cv2.boundingRect(cv2.LUT(self.labels, _BODY_BYTES))
        if not wide:
            return np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)
        scale = min(1.0, longest_px / max(wide, high))
        size = max(round(high * scale), 1), max(round(wide * scale), 1)
        photo, labels = np.empty((*size, 3), np.uint8), np.empty(size, np.uint8)
        cut = decode_photo(self.data, photo, self.orientation, "contain", (x, y, x + wide, y + high))
        self._place_labels(labels, cut)
        self._change(photo)
        return photo, cv2.flip(labels, 1) if self.mirrored else labels

    def placed_labels(self, cut: Cut, height: int, width: int) -> np.ndarray:
        """The label map cut as the photo was, uint8 [height, width]."""
        labels = np.empty((height, width), np.uint8)
        self._place_labels(labels, cut)
        return labels

    def _place_labels(self, into: np.ndarray, cut: Cut) -> None:
        if self.labels.shape != (cut.size[1], cut.size[0]):
            raise ValueError(
                f"{self._stem}regions.png is {self.labels.shape[1]} × {self.labels.shape[0]} px, the photo "
                f"{cut.size[0]} × {cut.size[1]}"
            )
        place(self.labels, into, cut, cv2.INTER_NEAREST_EXACT)

    def _member(self, kind: str) -> bytes:
        try:
            return self._members[self._stem + kind]
        except KeyError:
            raise ValueError(f"no member {self._stem}{kind}") from None


def _zoomed(width: int, height: int, kept: float, left: float, above: float) -> Box:
    """The part of a photo that is kept, px."""
    x, y = left * (1 - kept) * width, above * (1 - kept) * height
    return x, y, x + kept * width, y + kept * height


def _share(photo: _Photo, cut: Cut, height: int, width: int, latent: tuple[int, ...]) -> np.ndarray:
    """float32 [h, w] of a latent's size: how much of each of its pixels is the person."""
    inside = cv2.LUT(photo.placed_labels(cut, height, width), _BODY)
    # Each latent pixel covers a whole number of pixels: of areas of whole pixels this is the plain mean.
    return cv2.resize(inside, latent[::-1], interpolation=cv2.INTER_AREA)
