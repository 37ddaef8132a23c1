"""Label maps out of PNGs: the numbers that the file holds, never the colours that they stand for.

The maps that we write are 8-bit and unfiltered, so that a map is its rows, deflated, behind a zero
each. Inflating releases Python's lock, as libpng would not; other PNGs go through Pillow.
"""

import io
import struct

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBBBBB")
_CHUNK = struct.Struct(">I4s")
_GREY, _PALETTE = 0, 3
_MOST_BYTES = 2**28  # of a map; Pillow refuses pictures of more than 179 million pixels


def decode_labels(data: bytes) -> np.ndarray:
    """uint8 [height, width] of a palette or grey PNG. Raises ValueError or OSError where it is none."""
    try:
        rows = _unfiltered(data)
    except (struct.error, zlib_ng.error) as error:  # type: ignore[misc]  # its stub errs
        raise ValueError(f"broken label map: {error}") from None
    return _by_pillow(data) if rows is None else rows


def _unfiltered(data: bytes) -> np.ndarray | None:
    """The map where its rows lie in the file as they are; None where they do not."""
    signature, _, kind, width, height, depth, colour, _, _, interlaced = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or kind != b"IHDR":
        raise ValueError("label map: no PNG")
    if depth != 8 or colour not in (_GREY, _PALETTE) or interlaced:
        return None
    wanted = height * (width + 1)
    # No pixels would be no limit to what is inflated.
    if not width or not height or wanted > _MOST_BYTES:
        raise ValueError(f"label map: {width} × {height} px")
    packed = _content(data)
    inflater = zlib_ng.decompressobj()
    raw = inflater.decompress(packed, wanted)
    if len(raw) != wanted:
        raise ValueError(f"broken label map: {len(raw)} bytes instead of {wanted}")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


def _content(data: bytes) -> bytes:
    """What the IDAT chunks hold together."""
    parts = []
    at = len(_SIGNATURE)
    while True:
        length, kind = _CHUNK.unpack_from(data, at)
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            return parts[0] if len(parts) == 1 else b"".join(parts)
        at += 12 + length


def _by_pillow(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in ("P", "L", "1"):
                raise ValueError(f"label map: {image.mode} instead of a palette or grey PNG")
            return np.asarray(image, np.uint8)
    except (ValueError, OSError):
        raise
    except Exception as error:  # Pillow's, of broken chunks: SyntaxError, DecompressionBombError and others
        raise ValueError(f"broken label map: {error}") from None
