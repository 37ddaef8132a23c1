"""8-bit sRGB of whatever Pillow has opened: other profiles, CMYK, palettes, grey, 16 bits, transparency.

An ICC profile is applied by littlecms, relative colorimetric with black point compensation: colours that
sRGB has stay as they are, what lies outside of it is clipped, and the black of inks becomes black. A
profile that is broken, is not of the pixels' kind (grey, RGB, CMYK), or changes no colour by more than
rounding does counts as none.

A profile may say more than colours: the name of a display and of whoever calibrated it, serial numbers,
settings of a scanner. `bare_profile` is one without.
"""

import io
import struct
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

# Tags of ICC.1:2022, 9.2, and of version 2 that say how colours are converted, and the copyright notice.
_TAGS = frozenset(
    b"A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 B2D0 B2D1 B2D2 B2D3 D2B0 D2B1 D2B2 D2B3 rXYZ gXYZ bXYZ rTRC gTRC bTRC "
    b"kTRC wtpt bkpt chad gamt lumi cicp view meas tech pre0 pre1 pre2 cprt".split()
)
_HEADER, _ENTRY = 128, 12  # bytes of a profile's header, and of each tag in the table behind it
# Parts of the header that name makers, devices, a time: CMM, date, platform, device, creator and checksum.
_NAMING = ((4, 8), (24, 36), (40, 44), (48, 56), (80, _HEADER))
# A description, which must be there: "" as version 2 writes it, and of no language as version 4 does.
_NAMELESS = b"desc" + bytes(4) + struct.pack(">I", 1) + bytes(79)
_NAMELESS_4 = b"mluc" + bytes(4) + struct.pack(">II", 0, 12)


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


def changes_colours(profile: bytes | None) -> bool:
    """Whether pixels of a profile look otherwise where it is not applied."""
    kind = _kind_of_profile(profile)
    return kind is not None and conversion_of(profile, kind) is not None


def _kind_of_profile(profile: bytes | None) -> Kind | None:
    kinds: tuple[Kind, ...] = ("L", "RGB", "CMYK")
    return next((kind for kind in kinds if profile and profile[16:20] == _SPACES[kind]), None)


@lru_cache(maxsize=_KEPT)
def bare_profile(profile: bytes | None) -> bytes | None:
    """A profile with what converts colours, and its maker's copyright; None for what is no profile.

    Whatever else it says goes: description, names of devices and displays, measured patches, tags of makers.
    It is kept as it is where it would convert colours otherwise. Never larger: where there is no room for an
    empty description, it has none.
    """
    if profile is None or profile[36:40] != b"acsp":
        return None
    described = _bare(profile, _NAMELESS_4 if profile[8] >= 4 else _NAMELESS)
    made = described if described is None or len(described) <= len(profile) else _bare(profile, None)
    if made is None or len(made) > len(profile):
        return None if made is None else profile
    kind = _kind_of_profile(profile)
    if kind is not None and not _are_alike(conversion_of(profile, kind), conversion_of(made, kind), kind):
        return profile
    return made


def _bare(profile: bytes, description: bytes | None) -> bytes | None:
    if len(profile) < _HEADER + 4:
        return None
    count = int.from_bytes(profile[_HEADER : _HEADER + 4], "big")
    table = profile[_HEADER + 4 : _HEADER + 4 + _ENTRY * count]
    tags = [(name, profile[at : at + size]) for name, at, size in struct.iter_unpack(">4sII", _whole(table))]
    kept = [(b"desc", description)] if description is not None else []
    kept += [(name, content) for name, content in tags if name in _TAGS]
    start = _HEADER + 4 + _ENTRY * len(kept)
    entries, body, places = b"", b"", dict[bytes, int]()
    for name, content in kept:
        if content not in places:  # tags may share one place
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        entries += struct.pack(">4sII", name, places[content], len(content))
    header = bytearray(profile[:_HEADER])
    header[:4] = struct.pack(">I", start + len(body))
    for first, stop in _NAMING:
        header[first:stop] = bytes(stop - first)
    return bytes(header) + struct.pack(">I", len(kept)) + entries + body


def _whole(table: bytes) -> bytes:
    return table[: len(table) // _ENTRY * _ENTRY]


def _are_alike(one: "Conversion | None", other: "Conversion | None", kind: Kind) -> bool:
    if one is None or other is None:
        return one is other
    shown = {"L": _ramp, "RGB": _grid, "CMYK": _inks}[kind]()
    return np.array_equal(np.asarray(one.image(shown)), np.asarray(other.image(shown)))


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


@cache
def _inks() -> Image.Image:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    mixtures = np.stack(np.meshgrid(levels, levels, levels, levels), axis=-1)
    return Image.frombytes("CMYK", (81, 81), np.ascontiguousarray(mixtures).tobytes())


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
