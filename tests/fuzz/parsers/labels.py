"""The reader of label maps: PNGs of numbers."""

import io
import struct

import numpy as np
from PIL import Image

from shards.format.label_maps import decode_labels

MODULES = ("shards.format.label_maps", "PIL.PngImagePlugin")


def seeds() -> list[bytes]:
    """Maps as we write them, and other PNGs."""
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    pictures = [
        Image.fromarray(values, "P"),
        Image.fromarray(values, "L"),
        Image.fromarray(values).convert("1"),
        Image.fromarray(np.stack([values] * 3, axis=-1)),
    ]
    found = []
    for picture in pictures:
        sink = io.BytesIO()
        picture.save(sink, "PNG")
        found.append(sink.getvalue())
    # A header that claims what no memory holds, and one that claims no rows before a long stream.
    head = found[0]
    huge, none = struct.pack(">II", 2**31 - 1, 2**31 - 1), struct.pack(">II", 8, 0)
    return [*found, head[:16] + huge + head[24:], head[:16] + none + head[24:]]


def parse(data: bytes) -> None:
    """A map, ValueError or OSError."""
    try:
        labels = decode_labels(data)
    except (ValueError, OSError):
        return
    assert labels.ndim == 2
    assert labels.dtype == np.uint8
