"""Stage `appearance`: colour and texture of each clothed region, stored to compare people by.

The face is left out, so that "the same person" does not answer for "the same clothes".
"""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.people.atr import decode_map
from curation.people.boxes import whole_box
from curation.people.detect import Detect
from curation.people.person_stage import Measured, People, PersonStage
from curation.people.regions import Regions
from curation.people.segment import Segment
from curation.settings.people import AppearanceSettings

# What is compared: the regions of the paper that clothes are in, and headwear by itself.
CLOTHED: dict[str, tuple[int, ...]] = {
    "headwear": (1,),
    "torso": (4, 7, 17),
    "legs": (5, 6, 8, 12, 13),
    "shoes": (9, 10),
}
_LIGHT_BINS, _CHROMA_BINS, _TEXTURE_BINS = 8, 8, 8
BINS = _LIGHT_BINS + _CHROMA_BINS * _CHROMA_BINS + _TEXTURE_BINS
_IS_IN = [np.isin(np.arange(256), members) for members in CLOTHED.values()]
_SMOOTHING = np.array([0.25, 0.5, 0.25], dtype=np.float32)


class Appearance(PersonStage):
    """`appearance` is float16 [len(CLOTHED), BINS] as bytes; a region that is not seen is all zero."""

    name: ClassVar[str] = "appearance"
    fills: ClassVar[pa.Schema] = pa.schema([("appearance", pa.binary()), ("appearance_error", pa.string())])
    needs: ClassVar[tuple[str, ...]] = (Detect.name, Segment.name, Regions.name)
    requires: ClassVar[str | None] = "labels"
    settings_type: ClassVar[Any] = AppearanceSettings

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """Describes every wanted person."""
        height, width = photo.shape[:2]
        described = []
        for person in wanted:
            x0, y0, x1, y1 = whole_box(np.array(person["box"]), width, height)
            vector = describe(photo[y0:y1, x0:x1], decode_map(person["labels"]), self.settings)
            described.append({"appearance": vector.astype("<f2").tobytes()})
        return described


def describe(crop: np.ndarray, labels: np.ndarray, settings: AppearanceSettings) -> np.ndarray:
    """float32 [len(CLOTHED), BINS] of a person's crop, uint8 [h, w, 3] RGB, and its ATR labels.

    For each region: soft histograms of Lab lightness, of chroma (a × b) and of edge strength, each
    of sum 1/3; a zero row where fewer than `min_region_px` pixels are seen.
    """
    import cv2

    scale = min(settings.side_px / max(crop.shape[:2]), 1.0)
    size = (max(round(crop.shape[1] * scale), 1), max(round(crop.shape[0] * scale), 1))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    map_ = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    lab = cv2.cvtColor(small.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    light = np.ascontiguousarray(lab[..., 0])
    edges = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    rows = []
    for inside in (lookup[map_] for lookup in _IS_IN):
        if int(inside.sum()) < settings.min_region_px:
            rows.append(np.zeros(BINS, np.float32))
            continue
        rows.append(
            np.concatenate(
                [
                    _histogram(light[inside], 0, 100, _LIGHT_BINS),
                    _chroma(lab[inside][:, 1:]),
                    _histogram(np.log1p(edges[inside]), 0, 6, _TEXTURE_BINS),
                ]
            )
            / 3
        )
    return np.stack(rows)


def _histogram(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    smooth = np.convolve(np.pad(counts.astype(np.float32), 1, mode="edge"), _SMOOTHING, mode="valid")
    return np.asarray(smooth / max(float(smooth.sum()), 1e-9))


def _chroma(ab: np.ndarray) -> np.ndarray:
    import cv2

    clipped = np.clip(ab, -60, 60)
    counts, _, _ = np.histogram2d(
        clipped[:, 0], clipped[:, 1], bins=_CHROMA_BINS, range=[[-60, 60], [-60, 60]]
    )
    smooth = cv2.sepFilter2D(
        counts.astype(np.float32), -1, _SMOOTHING, _SMOOTHING, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(smooth.ravel() / max(float(smooth.sum()), 1e-9))


def vector_of(data: bytes) -> np.ndarray:
    """float32 [regions, BINS] from the stored bytes."""
    return np.frombuffer(data, "<f2").astype(np.float32).reshape(len(CLOTHED), BINS)
