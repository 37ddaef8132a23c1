"""A PictureClassifier by any image classification model of transformers, from a local folder."""

import numpy as np

from curation.errors import ConfigError
from curation.models import Models, torch_device
from curation.people.load_transformers import load_transformers
from curation.settings.people import TransformersClassifierSettings


class TransformersClassifier:
    """The sum of the probabilities of the labels that the settings count."""

    def __init__(self, settings: TransformersClassifierSettings, models: Models) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._torch = torch
        self._batch = settings.batch_size
        self._device = torch_device()
        self._processor, model = load_transformers(
            settings.model, models, AutoImageProcessor, AutoModelForImageClassification
        )
        numbers = {str(label): int(number) for number, label in model.config.id2label.items()}
        unknown = [label for label in settings.labels if label not in numbers]
        if unknown:
            known = ", ".join(sorted(numbers))
            raise ConfigError(f"model {settings.model}: knows no label '{unknown[0]}' (it has: {known})")
        self._counted = [numbers[label] for label in settings.labels]
        self._model = model.to(self._device)

    def score(self, pictures: list[np.ndarray]) -> np.ndarray:
        """uint8 [h, w, 3] RGB each → float32 [n], 0 to 1."""
        torch = self._torch
        scores = []
        for start in range(0, len(pictures), self._batch):
            batch = [np.ascontiguousarray(picture) for picture in pictures[start : start + self._batch]]
            inputs = self._processor(images=batch, input_data_format="channels_last", return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(**inputs.to(self._device)).logits.float().cpu()
            scores.append(logits.softmax(dim=-1)[:, self._counted].sum(dim=-1).numpy())
        return np.concatenate(scores).astype(np.float32)
