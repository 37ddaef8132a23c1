"""The size of a photo as it is looked at, from its header alone."""

import io

from PIL import Image

from shards.orientation import orientation_of

_FORMATS = ("JPEG", "PNG", "WEBP")


def upright_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of an encoded photo, px, turned by its EXIF; None where its header cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if orientation_of(data) >= 5 else (width, height)


def is_orientation(value: object) -> bool:
    """Whether a value is an EXIF orientation, 1 to 8. Records of others say `landscape` under that name."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 8
