"""The picture of a person that a vision-language model is shown: cut, greyed, scaled, and kept for a while.

Training, serving and in-process use share how it is made.
"""

import base64
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import cv2
import numpy as np

from curation.people.atr import decode_map
from curation.people.boxes import whole_box
from curation.photos.decode import VERSION as DECODE_VERSION
from curation.photos.decode import decode_rgb
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes

VERSION = 1  # raised when the same person gives other pixels
GREY = 128  # of what is not the person, and of the padding
JPEG_QUALITY = 95
# The columns of a person that a picture is made of.
COLUMNS = (
    "person_id", "photo_id", "source_key", "uri", "offset", "length", "row", "orientation", "box", "mask",
)  # fmt: skip
_OPEN_BYTES = 128 * 2**20  # of finished pictures; one person is often shown several times in a row

Person = Mapping[str, Any]


def person_picture(
    photo: np.ndarray,
    box: np.ndarray,
    mask: np.ndarray | None,
    canvas_px: tuple[int, int],
    background: Literal["keep", "grey"],
    margin: float,
) -> np.ndarray:
    """One person, scaled to fit a canvas and centred on it.

    photo       uint8 [H, W, 3] RGB
    box         float [4] x0, y0, x1, y1 in pixels of the photo
    mask        bool [h, w] on the box with its borders rounded outwards and cut at the photo (another
                size is scaled to it); None: the whole box is the person
    canvas_px   (width, height) of the result
    background  grey: pixels outside the mask become (128, 128, 128)
    margin      share of the box's sides by which each border moves outwards, cut at the photo

    Returns uint8 [height, width, 3] RGB, padded with 128.
    """
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    grow_x, grow_y = margin * (x1 - x0), margin * (y1 - y0)
    grown = (x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y)
    left, top, right, bottom = whole_box(grown, width, height).tolist()
    cut = photo[top:bottom, left:right]
    if background == "grey":
        inside = np.zeros(cut.shape[:2], bool)
        a, b, c, d = whole_box(box, width, height).tolist()
        person = np.ones((d - b, c - a), bool) if mask is None else _fitted(mask, c - a, d - b)
        inside[b - top : d - top, a - left : c - left] = person
        cut = np.where(inside[:, :, None], cut, np.uint8(GREY))
    return _on_canvas(np.ascontiguousarray(cut), canvas_px)


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 [h, w, 3] RGB as JPEG; the same pixels give the same bytes."""
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return bytes(data.tobytes())


def data_url(data: bytes) -> str:
    """JPEG bytes as the URL that an OpenAI-compatible server takes."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _fitted(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    if mask.shape == (height, width):
        return mask.astype(bool)
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def _on_canvas(cut: np.ndarray, canvas_px: tuple[int, int]) -> np.ndarray:
    wide, high = canvas_px
    scale = min(wide / cut.shape[1], high / cut.shape[0])
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    size = (min(size[0], wide), min(size[1], high))
    scaled = cv2.resize(cut, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.full((high, wide, 3), GREY, np.uint8)
    left, top = (wide - size[0]) // 2, (high - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas


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
        """All that the picture is a function of, besides the layout, as JSON. Opens no photo."""
        mask = b"" if self._background == "keep" or person["mask"] is None else person["mask"]
        parts = [
            DECODE_VERSION,
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
