"""People by ultralytics: any weights that `YOLO()` loads, boxes or pose. AGPL-3.0."""

from pathlib import Path

import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models, torch_device
from curation.people.protocols import Detections
from curation.people.quiet_ultralytics import quiet_ultralytics
from curation.settings.people import UltralyticsSettings

_PERSON = 0  # in COCO, and in every pose model of ultralytics
_BATCHED = (".pt", ".yaml")  # exported models have a batch size of their own, mostly 1


class UltralyticsDetector:
    """A PersonDetector."""

    def __init__(self, settings: UltralyticsSettings, models: Models) -> None:
        path = Path(models[settings.model].path)
        self._device = torch_device()
        self._settings = settings
        self._floor = 0.01
        self._batched = path.suffix in _BATCHED
        try:
            # An export carries its task; one that does not is a detector.
            self._yolo = quiet_ultralytics().YOLO(str(path))
            self._predict([np.zeros((64, 64, 3), np.uint8)])  # exports are opened by the first call
        except Exception as error:  # every format has errors of its own
            raise ConfigError(
                f"model {settings.model}: {path} is no usable detector: {one_line(error)}"
            ) from None

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """Runs the model on square letterboxes, so that an answer does not depend on the batch."""
        if not self._batched:
            return [self._predict([photo])[0] for photo in photos]
        return self._predict(photos)

    def _predict(self, photos: list[np.ndarray]) -> list[Detections]:
        results = self._yolo.predict(
            [np.ascontiguousarray(photo[..., ::-1]) for photo in photos],
            conf=self._floor,
            iou=self._settings.nms_iou,
            imgsz=self._settings.image_px,
            classes=[_PERSON],
            rect=False,
            device=self._device,
            verbose=False,
        )
        found = []
        for result in results:
            keypoints = result.keypoints
            found.append(
                Detections(
                    boxes=result.boxes.xyxy.cpu().numpy().astype(np.float32).reshape(-1, 4),
                    scores=result.boxes.conf.cpu().numpy().astype(np.float32).reshape(-1),
                    keypoints=None
                    if keypoints is None
                    else keypoints.data.cpu().numpy().astype(np.float32).reshape(-1, 17, 3),
                )
            )
        return found
