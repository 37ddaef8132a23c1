"""Detector and segmenters of ultralytics, AGPL-3.0: the only file of the product that imports it."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from curation.errors import ConfigError, one_line
from curation.models import Models, torch_device
from curation.people.protocols import Detections
from curation.people.segment_sam import boxes_at_once
from curation.settings.people import UltralyticsSamSettings, UltralyticsSettings


def quiet_ultralytics() -> ModuleType:
    """The package: offline, without installing anything, and with `PIL.Image.open` as it was.

    Its own `open` looks for a package each time that a file is no picture, and raises
    ModuleNotFoundError where there is none: then a broken photo would not be told as one.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    import ultralytics
    from ultralytics.utils import patches

    if Image.open is getattr(patches, "image_open", None):
        Image.open = patches._image_open  # what it was when ultralytics was imported, by whomever
    return ultralytics


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
        """The photo is embedded once, or twice for a crowd; a mask without a score of the model is blank.

        A crowd is masked some boxes at a time: before it is cut, a mask is of the photo's size.
        """
        bgr, some = np.ascontiguousarray(photo[..., ::-1]), boxes_at_once(photo)
        prompts = [boxes[at : at + some].astype(np.float32).tolist() for at in range(0, len(boxes), some)]
        masks: list[np.ndarray] = []
        for number, bboxes in enumerate(prompts):
            if number == 0:
                results = self._sam(bgr, bboxes=bboxes, conf=0.0, device=self._device, verbose=False)
            else:
                if number == 1:
                    self._sam.predictor.set_image(bgr)
                self._sam.predictor.set_prompts({"bboxes": bboxes})
                results = self._sam.predictor()
            masks += _masks_of(results[0], boxes[number * some :][: len(bboxes)])
        return masks


def _masks_of(found: Any, boxes: np.ndarray) -> list[np.ndarray]:
    masks = [np.zeros((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes.tolist()]
    # Masks at or below `conf` are left out: `cls` says which box each of the others is for.
    for which, mask in zip(found.boxes.cls.int().tolist(), found.masks.data, strict=True):
        x0, y0, x1, y1 = boxes[which]
        masks[which] = mask[y0:y1, x0:x1].cpu().numpy().astype(bool)
    return masks
