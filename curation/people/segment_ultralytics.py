"""Masks by the SAM models of ultralytics (SAM, SAM 2, MobileSAM). AGPL-3.0."""

import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models, torch_device
from curation.people.quiet_ultralytics import quiet_ultralytics
from curation.settings.people import UltralyticsSamSettings


class UltralyticsSam:
    """A Segmenter; ultralytics tells the architecture by the file's name (sam_b.pt, mobile_sam.pt)."""

    def __init__(self, settings: UltralyticsSamSettings, models: Models) -> None:
        self._device = torch_device()
        path = models[settings.model].path
        try:
            self._sam = quiet_ultralytics().SAM(path)
        except Exception as error:  # an unknown file name, or what torch raises for wrong weights
            raise ConfigError(f"model {settings.model}: {path}: {one_line(error)}") from None

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """One call for all boxes of a photo; a mask that the model itself gives no score is blank."""
        results = self._sam(
            np.ascontiguousarray(photo[..., ::-1]),
            bboxes=boxes.astype(np.float32).tolist(),
            conf=0.0,
            device=self._device,
            verbose=False,
        )
        masks = [np.zeros((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes.tolist()]
        found = results[0]
        # Masks at or below `conf` are left out: `cls` says which box each of the others is for.
        for which, mask in zip(found.boxes.cls.int().tolist(), found.masks.data.cpu().numpy(), strict=True):
            x0, y0, x1, y1 = boxes[which]
            masks[which] = mask[y0:y1, x0:x1].astype(bool)
        return masks
