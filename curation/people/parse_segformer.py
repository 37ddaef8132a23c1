"""Regions by a SegFormer of transformers with the 18 ATR labels."""

import cv2
import numpy as np

from curation.errors import ConfigError
from curation.models import Models, torch_device
from curation.people.load_transformers import load_transformers
from curation.people.protocols import PersonView
from curation.settings.people import SegformerSettings


class SegformerParser:
    """A Parser: each person's crop, resized as the model's processor says, labelled by pixel."""

    def __init__(self, settings: SegformerSettings, models: Models) -> None:
        import torch
        from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

        self._torch = torch
        self._batch = settings.batch_size
        self._device = torch_device()
        self._processor, model = load_transformers(
            settings.model, models, SegformerImageProcessor, SegformerForSemanticSegmentation
        )
        if model.config.num_labels != 18:
            raise ConfigError(
                f"model {settings.model}: has {model.config.num_labels} labels, the 18 of ATR are needed"
            )
        self._model = model.to(self._device)

    def parse(self, photo: np.ndarray, people: list[PersonView]) -> list[np.ndarray]:
        """Crops in batches; logits are enlarged to the crop before the best label is taken."""
        torch = self._torch
        found: list[np.ndarray] = []
        for start in range(0, len(people), self._batch):
            batch = people[start : start + self._batch]
            crops = [photo[p.box[1] : p.box[3], p.box[0] : p.box[2]].copy() for p in batch]
            # A crop of 1 or 3 rows would be taken for one with its channels first.
            inputs = self._processor(images=crops, input_data_format="channels_last", return_tensors="pt")
            inputs = inputs.to(self._device)
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float().cpu()
            for person, scores in zip(batch, logits, strict=True):
                labels = _enlarge(scores.numpy(), person.mask.shape)
                found.append(labels * (person.mask > 0).astype(np.uint8))
        return found


def _enlarge(scores: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels [h, w] from logits [18, h/4, w/4]; one plane at a time keeps large crops small."""
    best = np.full(shape, -np.inf, np.float32)
    labels = np.zeros(shape, np.uint8)
    for label, plane in enumerate(scores):
        large = cv2.resize(plane, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
        better = large > best
        best[better] = large[better]
        labels[better] = label
    return labels
