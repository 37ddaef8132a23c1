"""Decoders of photos: pictures, label maps and records of samples, as arrays of a batch.

`PhotoBatches` takes one photo of each sample, `PairBatches` the two of a `pairs.Pair`. Both write into
arrays that the batch owns, on whichever thread they are called.

A batch of pictures is tens of megabytes; memory that is fresh from the system costs a fault for every page
of it, which is a fifth of the time of decoding. So the memory of a batch is used again as soon as nothing
refers to it: an array belongs to whoever holds it, or any view of it, for as long as they like.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import orjson

from shards.format.label_maps import decode_labels
from shards.format.members import IMAGE_SUFFIXES, member_named
from shards.format.orientation import orientation_of
from shards.reading.decode import Box, Fit, decode_photo, place
from shards.reading.folder import Sample
from shards.reading.pairs import Pair

_KEPT = 4  # unused pieces of one size


class BatchMemory:
    """Hands out arrays with undefined content. Safe to use from several threads."""

    def __init__(self) -> None:
        self._unused: dict[int, deque[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of this shape."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        unused = self._unused.setdefault(size, deque(maxlen=_KEPT))
        try:
            memory = unused.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(memory, unused)).view(kind).reshape(shape)


class _Lease:
    """What every view of an array refers to in the end (numpy's `base`); its end is theirs."""

    def __init__(self, memory: np.ndarray, unused: deque[np.ndarray]) -> None:
        self._memory, self._unused = memory, unused
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._unused.append(self._memory)


class Memory(Protocol):
    """Where the arrays of a batch lie."""

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with undefined content, that belongs to who holds it."""
        ...


class PhotoSlots:
    """How one photo becomes a slot of these arrays, whose names begin with `prefix`:

    images      uint8 [batch, height, width, 3], RGB
    masks       uint8 [batch, height, width]: labels as the file holds them; with `masks`
    placements  float64 [batch, 4]: sx, sy, tx, ty; a point x, y of the upright photo, as the record has
                it, lies at sx·x + tx, sy·y + ty of the slot
    records     list [batch]: the photo's record, or None where it has none

    fit     `cover` fills the slot and cuts what does not fit, `contain` keeps all and leaves the rest 0
    box     what part of the photo is wanted: from its record to x0, y0, x1, y1 in px; None is all of it
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        fit: Fit = "cover",
        masks: bool = True,
        box: Callable[[Any], Box | None] | None = None,
        prefix: str = "",
        memory: Memory | None = None,
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"a slot of {height} × {width} px cannot be filled")
        self._height, self._width, self._fit, self._box = height, width, fit, box
        self._memory = memory or BatchMemory()
        self._images, self._placements, self._records = (
            f"{prefix}{name}" for name in ("images", "placements", "records")
        )
        self._masks = f"{prefix}masks" if masks else None
        # One picture is resized by the thread that decoded it; the loader has threads enough.
        cv2.setNumThreads(1)

    def allocate(self, batch: int) -> dict[str, Any]:
        """The arrays."""
        take = self._memory.take
        arrays: dict[str, Any] = {
            self._images: take((batch, self._height, self._width, 3), np.uint8),
            self._placements: np.empty((batch, 4)),
            self._records: [None] * batch,
        }
        if self._masks:
            arrays[self._masks] = take((batch, self._height, self._width), np.uint8)
        return arrays

    def fill(self, members: Mapping[str, bytes], photo: str, arrays: dict[str, Any], slot: int) -> None:
        """Decodes the photo whose members are named `photo`.jpg and so on. Raises ValueError, OSError."""
        stem = f"{photo}." if photo else ""
        data = picture_of(members, stem)
        encoded = member_named(members, f"{stem}json")
        record = None if encoded is None else orjson.loads(encoded)
        box = None if self._box is None else self._box(record)
        cut = decode_photo(data, arrays[self._images][slot], orientation_of(data, record), self._fit, box)
        arrays[self._records][slot] = record
        arrays[self._placements][slot] = cut.affine()
        if self._masks:
            labels = decode_labels(_member(members, f"{stem}regions.png"))
            into = arrays[self._masks][slot]
            if cut.size != labels.shape[::-1]:
                raise ValueError(
                    f"label map of {labels.shape[1]} × {labels.shape[0]} px to a photo of "
                    f"{cut.size[0]} × {cut.size[1]} px"
                )
            place(labels, into, cut, cv2.INTER_NEAREST_EXACT)


class PhotoBatches:
    """A Decoder of `Sample`s: one photo of each. Further settings are those of `PhotoSlots`.

    photo   which: "000" is the first of a group; "" is the picture of a sample that has but one, `jpg`

    Besides the arrays of PhotoSlots: keys, list [batch].
    """

    def __init__(self, height: int, width: int, *, photo: str = "000", **settings: Any) -> None:
        self._photo, self._slots = photo, PhotoSlots(height, width, **settings)

    def allocate(self, batch: int) -> dict[str, Any]:
        """The arrays."""
        return {**self._slots.allocate(batch), "keys": [None] * batch}

    def decode(self, sample: Sample, arrays: dict[str, Any], slot: int) -> None:
        """Fills a slot. Raises ValueError or OSError where the sample is broken."""
        arrays["keys"][slot] = sample.key
        self._slots.fill(sample.members, self._photo, arrays, slot)


class PairBatches:
    """A Decoder of `Pair`s. Settings are those of `PhotoSlots`.

    Arrays: those of PhotoSlots twice, as reference_images, target_images and so on; keys, list [batch].
    """

    def __init__(self, height: int, width: int, **settings: Any) -> None:
        self._reference = PhotoSlots(height, width, prefix="reference_", **settings)
        self._target = PhotoSlots(height, width, prefix="target_", **settings)

    def allocate(self, batch: int) -> dict[str, Any]:
        """The arrays."""
        both = {**self._reference.allocate(batch), **self._target.allocate(batch)}
        return {**both, "keys": [None] * batch}

    def decode(self, sample: Pair, arrays: dict[str, Any], slot: int) -> None:
        """Fills a slot. Raises ValueError or OSError where the sample is broken."""
        arrays["keys"][slot] = sample.key
        self._reference.fill(sample.members, f"{sample.reference:03d}", arrays, slot)
        self._target.fill(sample.members, f"{sample.target:03d}", arrays, slot)


def picture_of(members: Mapping[str, bytes], stem: str) -> bytes:
    """The encoded photo among the members, whatever its format."""
    for suffix in IMAGE_SUFFIXES:
        data = member_named(members, stem + suffix)
        if data is not None:
            return data
    raise ValueError(f"no picture {stem}jpg, {stem}png or {stem}webp")


def _member(members: Mapping[str, bytes], suffix: str) -> bytes:
    data = member_named(members, suffix)
    if data is None:
        raise ValueError(f"no member {suffix}")
    return data
