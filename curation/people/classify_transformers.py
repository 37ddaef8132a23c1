"""A PictureClassifier by any image classification model of transformers, from a local folder."""

import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models, torch_device
from curation.settings.people import TransformersClassifierSettings


class TransformersClassifier:
    """The sum of the probabilities of the labels that the settings count."""

    def __init__(self, settings: TransformersClassifierSettings, models: Models) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._torch = torch
        self._batch = settings.batch_size
        self._device = torch_device()
        path = models[settings.model].path
        try:
            self._processor = AutoImageProcessor.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            model, report = AutoModelForImageClassification.from_pretrained(
                path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # OSError, ValueError, and those of safetensors and torch
            raise ConfigError(f"model {settings.model}: {path}: {one_line(error)}") from None
        if report["missing_keys"]:  # transformers would fill them with random numbers
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ConfigError(f"model {settings.model}: {path} lacks weights: {missing}")
        numbers = {str(label): int(number) for number, label in model.config.id2label.items()}
        unknown = [label for label in settings.labels if label not in numbers]
        if unknown:
            known = ", ".join(sorted(numbers))
            raise ConfigError(f"model {settings.model}: knows no label '{unknown[0]}' (it has: {known})")
        self._counted = [numbers[label] for label in settings.labels]
        self._model = model.eval().to(self._device)

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
