"""Which way up a photo is: its EXIF orientation, and how it is turned by it."""

import re
import struct

import numpy as np

from shards.embedded import Embedded, embedded_in

_ORIENTATION = 0x0112
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VALUES = {1: "B", 3: "H", 4: "I"}  # type of a tag: how a value of it is packed
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation_of(data: bytes) -> int:
    """EXIF orientation of an encoded photo, 1 to 8; 1 where it says nothing, or nonsense. Decodes nothing."""
    return stated_orientation(embedded_in(data))


def stated_orientation(embedded: Embedded) -> int:
    """What EXIF says, or XMP where EXIF says nothing, as in Pillow; 1 where neither does, or nonsense."""
    value = None if embedded.exif is None else _in_exif(embedded.exif)
    if value is None and embedded.xmp is not None:
        found = _IN_XMP.search(embedded.xmp)
        value = int(found[1]) if found else None
    return value if value is not None and 1 <= value <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    """The tag in the first directory; None where it is not, or the directory is broken before it."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, at)
            if tag == _ORIENTATION and kind in _VALUES:
                return int(struct.unpack_from(f"{order}{_VALUES[kind]}", exif, at + 8)[0])
    except struct.error:  # it points out of itself
        pass
    return None


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The upright view of what was decoded, [h, w, …], by its EXIF orientation, 1 to 8."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture if orientation == 1 else np.ascontiguousarray(picture)
