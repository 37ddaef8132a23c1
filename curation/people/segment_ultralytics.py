"""Masks by the SAM models of ultralytics (SAM, SAM 2, MobileSAM). AGPL-3.0."""

import os

import numpy as np

from curation.models import Models
from curation.settings.people import UltralyticsSamSettings
from curation.torch_device import torch_device

LICENCE = "AGPL-3.0"


class UltralyticsSam:
    """A Segmenter; ultralytics tells the architecture by the file's name (sam_b.pt, mobile_sam.pt)."""

    def __init__(self, settings: UltralyticsSamSettings, models: Models) -> None:
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
        os.environ.setdefault("YOLO_VERBOSE", "false")
        from ultralytics import SAM

        self._device = torch_device()
        self._sam = SAM(models[settings.model].path)

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """One call for all boxes of a photo."""
        results = self._sam(
            np.ascontiguousarray(photo[..., ::-1]),
            bboxes=boxes.astype(np.float32).tolist(),
            device=self._device,
            verbose=False,
        )
        found = results[0].masks
        blank = np.zeros(photo.shape[:2], bool)
        whole = [] if found is None else list(found.data.cpu().numpy().astype(bool))
        whole += [blank] * (len(boxes) - len(whole))
        return [mask[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(whole, boxes.tolist(), strict=True)]
