"""Joints by ViTPose or ViTPose++ of transformers: top-down, one crop for each person's box."""

import numpy as np

from curation.errors import ConfigError
from curation.models import Models, torch_device
from curation.people.load_transformers import load_transformers
from curation.settings.people import VitposeSettings

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
