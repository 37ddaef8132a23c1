"""Decoded photos for a fused chain of stages: each photo is read and decoded once per slice."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from curation.photos.decode import OpenPhoto, open_photo
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes

_MAX_OPEN_BYTES = 2**30  # of decoded photos; the oldest are let go, and decoded again where needed


class Pixels:
    """Upright RGB photos by row; holds what the current slice has opened until `close`."""

    def __init__(self, source: SourceSettings, open_photo: OpenPhoto = open_photo) -> None:
        self._bytes = PhotoBytes(source)
        self._open_photo = open_photo
        self._open: dict[str, np.ndarray] = {}
        self._n_open = 0

    def rgb(self, row: Mapping[str, Any]) -> np.ndarray:
        """uint8 [height, width, 3] of the row's photo; read-only.

        Raises OSError or ValueError, also where the photo is no longer the one that was screened.
        """
        key = row["source_key"]
        if key not in self._open:
            data = self._bytes.read(row)
            if hashlib.sha256(data).hexdigest() != row["photo_id"]:
                raise ValueError("the photo has changed since it was read")
            _, image = self._open_photo(data, told=row["orientation"])
            assert image is not None
            image.flags.writeable = False
            self._open[key] = image
            self._n_open += image.nbytes
            while self._n_open > _MAX_OPEN_BYTES and len(self._open) > 1:
                self._n_open -= self._open.pop(next(iter(self._open))).nbytes
        return self._open[key]

    def close(self) -> None:
        """Lets go of all photos that are open."""
        self._open.clear()
        self._n_open = 0
