"""The picture of each person of a collection, made when it is asked for, and kept for a while."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from curation.people.atr import decode_map
from curation.photos.decode import VERSION, decode_rgb
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.vlm.picture import jpeg, person_picture

# The columns of a person that a picture is made of.
COLUMNS = (
    "person_id", "photo_id", "source_key", "uri", "offset", "length", "row", "orientation", "box", "mask",
)  # fmt: skip
_OPEN_BYTES = 128 * 2**20  # of finished pictures; one person is often shown several times in a row

Person = Mapping[str, Any]


class PersonPictures:
    """Pictures of one layout: canvas (width, height) in px, background, margin as a share of the box."""

    def __init__(
        self,
        source: SourceSettings,
        canvas_px: tuple[int, int],
        background: Literal["keep", "grey"],
        margin: float,
    ) -> None:
        self._bytes = PhotoBytes(source)
        self._canvas_px = canvas_px
        self._background: Literal["keep", "grey"] = background
        self._margin = margin
        self._reading = threading.Lock()
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes = 0

    def recipe(self, person: Person) -> str:
        """What the picture is a function of, besides the layout. Opens no photo."""
        mask = b"" if self._background == "keep" or person["mask"] is None else person["mask"]
        parts = [
            VERSION,
            person["photo_id"],
            person["orientation"],
            list(person["box"]),
            hashlib.sha256(mask).hexdigest(),
        ]
        return json.dumps(parts)

    def jpeg(self, person: Person) -> bytes:
        """The picture as JPEG. May be called from several threads.

        Raises OSError or ValueError where the photo cannot be read, has changed, or has no mask to grey by.
        """
        recipe = self.recipe(person)
        with self._reading:
            if recipe in self._pictures:
                self._pictures.move_to_end(recipe)
                return self._pictures[recipe]
            data = self._bytes.read(person)
        if hashlib.sha256(data).hexdigest() != person["photo_id"]:
            raise ValueError("the photo has changed since it was read")
        mask = None if person["mask"] is None else decode_map(person["mask"]) > 0
        if mask is None and self._background == "grey":
            raise ValueError("the person has no mask")
        box = np.array(person["box"], np.float64)
        photo = decode_rgb(data, told=person["orientation"])
        picture = jpeg(person_picture(photo, box, mask, self._canvas_px, self._background, self._margin))
        with self._reading:
            if recipe not in self._pictures:
                self._pictures[recipe] = picture
                self._n_bytes += len(picture)
            while self._n_bytes > _OPEN_BYTES:
                self._n_bytes -= len(self._pictures.popitem(last=False)[1])
        return picture
