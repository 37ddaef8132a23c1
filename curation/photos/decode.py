"""Opens and decodes photos: upright 8-bit sRGB whatever the file holds, and limits before decoding."""

import io
import warnings
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from curation.errors import one_line
from shards.format.colour import rgb_of
from shards.format.embedded import embedded_in, jpeg_parts
from shards.format.orientation import stated_orientation, turned
from shards.format.stated_rights import StatedRights, stated_rights

VERSION = 2  # raised when the same bytes give other pixels; 2: colours of all profiles in sRGB
# Only these parsers of Pillow ever see bytes of a collection.
ALLOWED = ("JPEG", "PNG", "WEBP")
MAX_SCANS = 100  # encoders write about ten
_SCAN = 0xDA
_OURS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_SIGNATURES = (
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\0\0\0\x0cjP", "jp2"),
    (b"\xff\x0a", "jxl"),
    (b"\0\x05\x16\x07", "appledouble"),
)

Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, before any decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False


@dataclass(frozen=True)
class Header:
    """What a photo's header says. width and height are in px and upright."""

    format: str
    width: int
    height: int
    orientation: int
    frames: int
    mode: str
    rights: StatedRights | None = None  # where they were asked for


class UnknownFormatError(ValueError):
    """The bytes are no JPEG, PNG or WebP; `str()` is the format they look like, or `unknown`."""


class DecodeError(ValueError):
    """A photo cannot be decoded; `header` is what could be read of it."""

    def __init__(self, message: str, header: Header | None = None) -> None:
        super().__init__(message)
        self.header = header


RightsWanted = Literal["none", "stated", "all"]
RIGHTS_WANTED: tuple[RightsWanted, ...] = ("none", "stated", "all")
Opened = tuple[Header, np.ndarray | None]


class OpenPhoto(Protocol):
    """`open_photo`, or the same in another process."""

    def __call__(
        self,
        data: bytes,
        about_px: int | None = None,
        max_pixels: int | None = None,
        told: int = 1,
        rights: RightsWanted = "none",
    ) -> Opened:
        """See `open_photo`."""
        ...


def open_photo(
    data: bytes,
    about_px: int | None = None,
    max_pixels: int | None = None,
    told: int = 1,
    rights: RightsWanted = "none",
) -> Opened:
    """Header and pixels (`decode_rgb`); of a photo of more than `max_pixels` the header alone.

    told     EXIF orientation, 1 to 8, of bytes that carry neither EXIF nor XMP
    rights   whether what the photo says of itself is read: not, without Content Credentials, or all

    Raises UnknownFormatError, and DecodeError whatever else is wrong.
    """
    header = None
    try:
        header = read_header(data, told)
        if max_pixels is not None and header.width * header.height > max_pixels:
            return header, None
        if rights != "none":
            header = replace(header, rights=stated_rights(data, credentials=rights == "all"))
        return header, decode_rgb(data, about_px, told)
    except UnknownFormatError:
        raise
    except Exception as error:  # decoders raise anything at all on broken files
        raise DecodeError(one_line(error), header) from None


def read_header(data: bytes, told: int = 1) -> Header:
    """The header of an encoded photo, without decoding it; `told` as in `open_photo`.

    Raises UnknownFormatError, and OSError or ValueError for a broken header.
    """
    with _open(data) as image:
        orientation = stated_orientation(embedded_in(data), told)
        width, height = image.size
        # Phones write JPEGs with a second picture behind the first; the first is the photo.
        is_multi_picture = image.format == "MPO"
        if orientation >= 5:
            width, height = height, width
        return Header(
            format="jpeg" if is_multi_picture else str(image.format).lower(),
            width=width,
            height=height,
            orientation=orientation,
            frames=1 if is_multi_picture else int(getattr(image, "n_frames", 1)),
            mode=image.mode,
        )


def decode_rgb(data: bytes, about_px: int | None = None, told: int = 1) -> np.ndarray:
    """The first frame as uint8 [height, width, 3], RGB, upright.

    CMYK, palettes, grey, 16-bit and transparent photos (over white) become 8-bit RGB, and colours of other
    profiles sRGB (`shards.format.colour`). With `about_px`, a JPEG may be decoded at a smaller scale whose
    longer side is at least that; `told` as in `open_photo`.
    Raises OSError or ValueError where the file is broken or cut short, and for a JPEG that goes over its
    picture more than `MAX_SCANS` times.
    """
    with _open(data) as image:
        # A scan of a few bytes costs a pass over all coefficients: thousands make a small file take hours.
        scans = _scans(data) if image.format in ("JPEG", "MPO") else 0
        if scans > MAX_SCANS:
            raise ValueError(f"a JPEG of more than {MAX_SCANS} scans")
        if about_px is not None:
            image.draft("RGB", (about_px, about_px))
        image.load()
        embedded = embedded_in(data)
        return turned(rgb_of(image, embedded.profile), stated_orientation(embedded, told))


def _scans(data: bytes) -> int:
    """How many scans the first picture of a JPEG has, or a bound of it below MAX_SCANS.

    What lies behind the picture is not read: phones append films.
    """
    bound = data.count(b"\xff\xda")
    if bound <= MAX_SCANS:
        return bound
    scans = 0
    for marker, _, _ in jpeg_parts(data):
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            break
    return scans


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data), formats=ALLOWED)
        except UnidentifiedImageError:
            if data.startswith(_OURS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
                raise ValueError("broken header") from None
            raise UnknownFormatError(_looks_like(data)) from None
        except (SyntaxError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"broken header: {error}") from None


def _looks_like(data: bytes) -> str:
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[4:12] in (b"ftypavif", b"ftypheic", b"ftypmif1", b"ftypheix"):
        return "avif" if data[8:12] == b"avif" else "heic"
    return "unknown"
