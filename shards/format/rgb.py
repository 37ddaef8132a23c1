"""8-bit sRGB of whatever Pillow has opened: CMYK, palettes, grey, 16 bits, transparency, other profiles."""

import numpy as np
from PIL import Image

from shards.format.colour import Kind, conversion_of

_GREY = ("1", "L", "LA", "La", "I", "F")


def rgb_of(image: Image.Image, profile: bytes | None) -> np.ndarray:
    """uint8 [height, width, 3] of an image that is loaded, as it is encoded; what is transparent over white.

    profile   ICC, that of the file; None: sRGB
    """
    conversion = conversion_of(profile, _kind_of(image.mode))
    if image.mode != "CMYK" or conversion is None:
        image = _flat(image)
    return np.asarray(image if conversion is None else conversion.image(image))


def _kind_of(mode: str) -> Kind:
    if mode == "CMYK":
        return "CMYK"
    return "L" if mode in _GREY or mode.startswith("I;16") else "RGB"


def _flat(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits at 255.
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
