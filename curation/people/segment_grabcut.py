"""Masks by OpenCV's GrabCut started from the box: no weights, rough borders."""

import cv2
import numpy as np

from curation.models import Models
from curation.settings.people import GrabcutSettings

_MARGIN = 0.15  # of the box, around it: what GrabCut learns the background from
_SEED = 0
# What the middle of a person's box surely holds, as shares of the box: without it GrabCut can decide
# that all is background where a person fills the photo.
_CORE = (0.42, 0.58, 0.15, 0.85)
_CORNER = 0.1


class Grabcut:
    """A Segmenter."""

    def __init__(self, settings: GrabcutSettings, models: Models) -> None:
        self._settings = settings

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """One run for each box, on a crop of at most `side_px`."""
        return [self._mask(photo, box) for box in boxes]

    def _mask(self, photo: np.ndarray, box: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = (int(value) for value in box)
        width, height = x1 - x0, y1 - y0
        left, top = max(x0 - int(width * _MARGIN), 0), max(y0 - int(height * _MARGIN), 0)
        right = min(x1 + int(width * _MARGIN), photo.shape[1])
        bottom = min(y1 + int(height * _MARGIN), photo.shape[0])
        crop = photo[top:bottom, left:right, ::-1]
        scale = min(self._settings.side_px / max(crop.shape[:2]), 1.0)
        size = (max(round(crop.shape[1] * scale), 2), max(round(crop.shape[0] * scale), 2))
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
        inner = [round((x0 - left) * scale), round((y0 - top) * scale)]
        outer = [
            max(round((x1 - left) * scale), inner[0] + 1),
            max(round((y1 - top) * scale), inner[1] + 1),
        ]
        labels[inner[1] : outer[1], inner[0] : outer[0]] = cv2.GC_PR_FGD
        _add_prior(labels, inner, outer)
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(_SEED)
        # GrabCut learns from both sides; a box of a few px can fill its crop to the last one.
        two_sided = (labels == cv2.GC_BGD).any() and (labels != cv2.GC_BGD).any()
        if two_sided and small.std() > 0:
            cv2.grabCut(
                np.ascontiguousarray(small),
                labels,
                None,
                background,
                foreground,
                self._settings.iterations,
                cv2.GC_INIT_WITH_MASK,
            )
        mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
        whole = cv2.resize(mask, (crop.shape[1], crop.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(whole[y0 - top : y1 - top, x0 - left : x1 - left] > 0)


def _add_prior(labels: np.ndarray, inner: list[int], outer: list[int]) -> None:
    """Marks the core of the box as person and, where the box fills the crop, its upper corners as not."""
    width, height = outer[0] - inner[0], outer[1] - inner[1]
    if (labels == cv2.GC_PR_FGD).all():
        corner = max(round(width * _CORNER), 1)
        labels[: labels.shape[0] // 5, :corner] = cv2.GC_BGD
        labels[: labels.shape[0] // 5, -corner:] = cv2.GC_BGD
    left, right = (inner[0] + round(width * share) for share in _CORE[:2])
    top, bottom = (inner[1] + round(height * share) for share in _CORE[2:])
    labels[top : max(bottom, top + 1), left : max(right, left + 1)] = cv2.GC_FGD
