"""Backends by models of transformers, from local folders: detector, picture classifier, joints, regions."""

from typing import Any

import cv2
import numpy as np

from curation.errors import ConfigError, one_line
from curation.models import Models, torch_device
from curation.people.protocols import Detections, PersonView
from curation.settings.people import (
    SegformerSettings,
    TransformersClassifierSettings,
    TransformersDetectSettings,
    VitposeSettings,
)


def load_transformers(
    name: str, models: Models, processor: Any, network: Any, **options: Any
) -> tuple[Any, Any]:
    """The processor and the model, in evaluation mode, of the card `name`: classes of transformers, or Auto….

    Nothing is downloaded, no code of the folder is run, and weights are safetensors. Raises ConfigError,
    also where a weight is missing: transformers would fill it with random numbers. `options` go to the model.
    It computes in float32, whatever the folder stores: processors give float32, and would not fit to halves.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # one for each worker, in the middle of the run's own lines
    path = models[name].path
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        prepares = processor.from_pretrained(path, **local)
        model, report = network.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **local, **options
        )
    except Exception as error:  # OSError, ValueError, and those of safetensors and torch
        raise ConfigError(f"model {name}: {path}: {one_line(error)}") from None
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ConfigError(f"model {name}: {path} lacks weights: {missing}")
    return prepares, model.eval()


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


# COCO's 17 keypoints in their order, as ViTPose's published configurations spell them.
_COCO = [
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist") for side in "lr"),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in "lr"),
]
# Of ViTPose++, whose layers have an expert for each set that it was trained on: that of COCO
# (huggingface.co/docs/transformers/model_doc/vitpose).
_COCO_EXPERT = 0


class Vitpose:
    """A JointFinder. A box is widened to the model's proportions and by a quarter, as it was trained."""

    def __init__(self, settings: VitposeSettings, models: Models) -> None:
        import torch
        from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor

        self._torch = torch
        self._batch = settings.batch_size
        self._device = torch_device()
        self._processor, model = load_transformers(
            settings.model, models, VitPoseImageProcessor, VitPoseForPoseEstimation
        )
        names = [
            str(name).lower().replace("left", "l").replace("right", "r")
            for _, name in sorted((int(number), name) for number, name in model.config.id2label.items())
        ]
        unnamed = all(name.startswith("label_") for name in names)
        if len(names) != len(_COCO) or not (unnamed or names == _COCO):
            raise ConfigError(
                f"model {settings.model}: its {len(names)} points ({', '.join(names[:4])}, …) "
                "are not COCO's 17 in their order"
            )
        self._has_experts = model.config.backbone_config.num_experts > 1
        self._model = model.to(self._device)

    def joints(self, photo: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """float32 [n, 4] boxes → float32 [n, 17, 3], decoded by the model's own processor."""
        torch = self._torch
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)  # a box without an inside has no crop
        prompts = np.concatenate([boxes[:, :2], sides], axis=1).astype(np.float32)
        found = []
        for start in range(0, len(prompts), self._batch):
            batch = [prompts[start : start + self._batch].tolist()]
            inputs = self._processor(
                images=[photo.copy()], boxes=batch, input_data_format="channels_last", return_tensors="pt"
            )
            pixels = inputs["pixel_values"].to(self._device)
            experts = torch.full((len(pixels),), _COCO_EXPERT, device=self._device)
            with torch.inference_mode():
                outputs = self._model(pixels, dataset_index=experts if self._has_experts else None)
            if not bool(torch.isfinite(outputs.heatmaps).all()):
                raise ValueError("the pose model answered with numbers that are not finite")
            found += [
                np.column_stack([person["keypoints"].numpy(), person["scores"].numpy()])
                for person in self._processor.post_process_pose_estimation(outputs, boxes=batch)[0]
            ]
        joints = np.stack(found).astype(np.float32)
        joints[..., 2] = np.clip(joints[..., 2], 0, 1)  # the height of a heatmap, trained to be 0 to 1
        return joints


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
