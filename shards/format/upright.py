"""The size of a photo as it is looked at, from its header alone."""

import io
from typing import Any

from PIL import Image

from shards.format.orientation import orientation_of

_FORMATS = ("JPEG", "PNG", "WEBP")


def upright_size(data: bytes, record: Any = None) -> tuple[int, int] | None:
    """(width, height) of an encoded photo, px, turned as `orientation_of` says; None for a broken header."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if orientation_of(data, record) >= 5 else (width, height)
