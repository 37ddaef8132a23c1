"""8-bit sRGB of whatever Pillow has opened: other profiles, CMYK, palettes, grey, 16 bits, transparency.

An ICC profile is applied by littlecms, relative colorimetric with black point compensation: colours that
sRGB has stay as they are, what lies outside of it is clipped, and the black of inks becomes black. A
profile that is broken, is not of the pixels' kind (grey, RGB, CMYK), or changes no colour by more than
rounding does counts as none.
"""

import io
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

Kind = Literal["L", "RGB", "CMYK"]

_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")  # not those that link devices or name colours
_KEPT = 16  # profiles at a time; cameras have few
_GRID = 17  # levels of each channel on which a profile is tried
_ROUNDING = 2  # levels of 255 by which profiles of sRGB differ from each other
_GREY = ("1", "L", "LA", "La", "I", "F")


class Conversion:
    """From the pixels of a profile to sRGB."""

    def __init__(self, transform: ImageCms.ImageCmsTransform, kind: Kind) -> None:
        self._transform = transform
        self._levels = _applied(transform, _ramp()).reshape(256, 3) if kind == "L" else None

    def image(self, image: Image.Image) -> Image.Image:
        """An RGB image of one of the profile's kind; of grey levels also one whose channels are alike."""
        if self._levels is None:
            return self._transform.apply(image)
        return image.convert("RGB").point(self._levels.T.reshape(-1).tolist())

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] of such; not for CMYK."""
        return np.asarray(self.image(Image.fromarray(rgb)))


@lru_cache(maxsize=_KEPT)
def conversion_of(profile: bytes | None, kind: Kind) -> Conversion | None:
    """What is to be done with pixels of that kind; None: nothing."""
    if profile is None or profile[36:40] != b"acsp":
        return None
    if profile[16:20] != _SPACES[kind] or profile[12:16] not in _CLASSES:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _srgb(),
            kind,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if kind != "CMYK":
            tried = _ramp() if kind == "L" else _grid()
            shown = np.asarray(tried.convert("RGB"), np.int16)
            if np.abs(_applied(transform, tried) - shown).max() <= _ROUNDING:
                return None
        return Conversion(transform, kind)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # of strangers
        return None


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> np.ndarray:
    return np.asarray(transform.apply(image), np.int16)


@cache
def _srgb() -> ImageCms.core.CmsProfile:
    return ImageCms.createProfile("sRGB")


@cache
def _ramp() -> Image.Image:
    return Image.fromarray(np.arange(256, dtype=np.uint8)[None])


@cache
def _grid() -> Image.Image:
    levels = np.linspace(0, 255, _GRID).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(np.ascontiguousarray(colours.reshape(_GRID, -1, 3)))


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
