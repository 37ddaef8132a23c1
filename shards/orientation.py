"""Which way up a photo is: its EXIF orientation, and how it is turned by it."""

import io

import numpy as np
from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP")
_EXIF_BYTES = 65_536  # EXIF is the first segment of a JPEG, which is no longer
_ORIENTATION = 0x0112


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The upright view of what was decoded, [h, w, …], by its EXIF orientation, 1 to 8."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture if orientation == 1 else np.ascontiguousarray(picture)


def orientation_of(data: bytes) -> int:
    """EXIF orientation of an encoded photo, 1 to 8; 1 where it says nothing, or nonsense."""
    if data.startswith(b"\xff\xd8") and data.find(b"Exif\0\0", 0, _EXIF_BYTES) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF of strangers: whatever is wrong with it, the photo is taken as upright
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
