"""Decoded photos for a fused chain of stages: each photo is read and decoded once per slice."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from curation.photos.decode import decode_rgb
from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes


class Pixels:
    """Upright RGB photos by row; holds what the current slice has opened until `close`."""

    def __init__(self, source: SourceSettings) -> None:
        self._bytes = PhotoBytes(source)
        self._open: dict[str, np.ndarray] = {}
        self.decoded = 0

    def rgb(self, row: Mapping[str, Any]) -> np.ndarray:
        """uint8 [height, width, 3] of the row's photo; read-only. Raises OSError or ValueError."""
        key = row["source_key"]
        if key not in self._open:
            image = decode_rgb(self._bytes.read(row))
            image.flags.writeable = False
            self._open[key] = image
            self.decoded += 1
        return self._open[key]

    def close(self) -> None:
        """Lets go of all photos that are open."""
        self._open.clear()
