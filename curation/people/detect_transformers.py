"""People by D-FINE, RT-DETR or any other object detector of transformers, from a local folder."""

from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.models import Models, torch_device
from curation.people.load_transformers import load_transformers
from curation.people.protocols import Detections
from curation.settings.people import TransformersDetectSettings


class TransformersDetector:
    """A PersonDetector without keypoints. Scores and boxes are those of the model's own processor."""

    def __init__(self, settings: TransformersDetectSettings, models: Models) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self._torch = torch
        self._batch = settings.batch_size
        self._device = torch_device()
        self._processor, model = load_transformers(
            settings.model, models, AutoImageProcessor, AutoModelForObjectDetection
        )
        labels = {int(number): str(label) for number, label in model.config.id2label.items()}
        wanted = settings.label.casefold()
        self._person = [number for number, label in labels.items() if label.casefold() == wanted]
        if not self._person:
            known = ", ".join(sorted(labels.values())[:12])
            raise ConfigError(
                f"model {settings.model}: knows no label '{settings.label}' "
                f"(it has, among {len(labels)}: {known})"
            )
        self._model = model.to(self._device)

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """One answer a photo; boxes are cut at its borders, and those without an inside left out.

        Each photo is resized by itself, and photos that become equally large go through the model
        together: what is padded to the largest of a batch would be answered otherwise than alone.
        """
        torch = self._torch
        ready = [
            self._processor(images=[photo.copy()], input_data_format="channels_last", return_tensors="pt")
            for photo in photos
        ]
        together: dict[tuple[int, ...], list[int]] = {}
        for i, inputs in enumerate(ready):
            together.setdefault(tuple(inputs["pixel_values"].shape), []).append(i)
        found: dict[int, Detections] = {}
        for places in together.values():
            for start in range(0, len(places), self._batch):
                batch = places[start : start + self._batch]
                stacked = {
                    name: torch.cat([ready[i][name] for i in batch]).to(self._device)
                    for name in ready[batch[0]]
                    if name in ("pixel_values", "pixel_mask")
                }
                with torch.inference_mode():
                    outputs = self._model(**stacked)
                if not bool(torch.isfinite(outputs.logits).all() & torch.isfinite(outputs.pred_boxes).all()):
                    raise ValueError("the detector answered with numbers that are not finite")
                sizes = [photos[i].shape[:2] for i in batch]
                answers = self._processor.post_process_object_detection(
                    outputs, threshold=0.0, target_sizes=sizes
                )
                for i, answer in zip(batch, answers, strict=True):
                    found[i] = self._people(answer, photos[i].shape)
        return [found[i] for i in range(len(photos))]

    def _people(self, answer: dict[str, Any], shape: tuple[int, ...]) -> Detections:
        scores, labels, boxes = (answer[name].float().cpu().numpy() for name in ("scores", "labels", "boxes"))
        boxes = np.clip(boxes.reshape(-1, 4), 0, (shape[1], shape[0], shape[1], shape[0]))
        kept = np.isin(labels, self._person) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.argsort(-scores[kept], kind="stable")
        return Detections(boxes[kept][order].astype(np.float32), scores[kept][order].astype(np.float32))
