"""Masks by Meta's segment-anything, and by SAM 2 through transformers. Both Apache-2.0."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from curation.errors import ConfigError
from curation.models import Models, torch_device
from curation.people.transformers_backends import load_transformers
from curation.settings.people import Sam2Settings, SegmentAnythingSettings

# The three published image encoders (segment_anything/build_sam.py).
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": [2, 5, 8, 11]},
    "vit_l": {
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23],
    },
    "vit_h": {
        "embed_dim": 1280,
        "depth": 32,
        "num_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    },
}
_PATCH_PX = 16
_MASK_BYTES = 2**29  # of masks in the size of the photo that exist at one time


class SegmentAnything:
    """A Segmenter: each photo is embedded once, all its boxes are prompted in one batch.

    With `crop_margin` each person's surroundings are cut out and embedded instead, and asked for one box.
    """

    def __init__(self, settings: SegmentAnythingSettings, models: Models) -> None:
        import torch
        from segment_anything import SamPredictor

        self._torch = torch
        path = models[settings.model].path
        sam = build_sam(settings.architecture)
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises pickle and zip errors alike, with advice not to follow
            raise ConfigError(
                f"model {settings.model}: {path} is no file of tensors: {type(error).__name__}"
            ) from None
        try:
            sam.load_state_dict(weights)
        except Exception as error:  # missing keys, shapes, no dict at all
            why = " ".join(" ".join(str(error).splitlines()[:2]).split())[:200]
            raise ConfigError(
                f"model {settings.model}: {path} does not fit architecture {settings.architecture}: {why}"
            ) from None
        self._predictor = SamPredictor(sam.eval().to(torch_device()))
        self._crop_margin = settings.crop_margin

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """The best single mask for each box, cut to it."""
        return _by_crops(self._segment_at_once, photo, boxes, self._crop_margin)

    def _segment_at_once(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        torch, predictor = self._torch, self._predictor
        some = boxes_at_once(photo)
        masks: list[np.ndarray] = []
        with torch.inference_mode():
            predictor.set_image(photo)
            for start in range(0, len(boxes), some):
                masks += self._prompted(boxes[start : start + some], photo.shape[:2])
        return masks

    def _prompted(self, boxes: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        torch, predictor = self._torch, self._predictor
        prompts = torch.as_tensor(boxes, dtype=torch.float32, device=predictor.device)
        masks, _, _ = predictor.predict_torch(
            point_coords=None,
            point_labels=None,
            boxes=predictor.transform.apply_boxes_torch(prompts, size),
            multimask_output=False,
        )
        return [
            mask[0, y0:y1, x0:x1].cpu().numpy().copy()
            for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True)
        ]


class Sam2:
    """A Segmenter by SAM 2 or SAM 2.1, as SegmentAnything is one: an embedding a photo, or one a crop."""

    def __init__(self, settings: Sam2Settings, models: Models) -> None:
        import torch
        from transformers import Sam2Model, Sam2Processor

        self._torch = torch
        self._device = torch_device()
        self._processor, model = load_transformers(settings.model, models, Sam2Processor, Sam2Model)
        self._model = model.to(self._device)
        self._crop_margin = settings.crop_margin

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """The best single mask for each box, cut to it."""
        return _by_crops(self._segment_at_once, photo, boxes, self._crop_margin)

    def _segment_at_once(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        torch = self._torch
        inputs = self._processor(
            images=photo.copy(),
            input_boxes=[boxes.astype(np.float32).tolist()],
            input_data_format="channels_last",
            return_tensors="pt",
        )
        with torch.inference_mode():
            outputs = self._model(
                pixel_values=inputs["pixel_values"].to(self._device),
                input_boxes=inputs["input_boxes"].to(self._device),
                multimask_output=False,
            )
        masks = []
        # One at a time: a mask of the whole photo for each of a crowd would be gigabytes.
        for low, (x0, y0, x1, y1) in zip(outputs.pred_masks[0].float(), boxes.tolist(), strict=True):
            whole = self._processor.post_process_masks([low[None]], [photo.shape[:2]])[0][0, 0]
            masks.append(whole[y0:y1, x0:x1].cpu().numpy().copy())
        return masks


def boxes_at_once(photo: np.ndarray) -> int:
    """How many may be prompted together: before it is cut, a mask is a float of the photo's size."""
    return max(_MASK_BYTES // (4 * photo.shape[0] * photo.shape[1]), 1)


def _by_crops(
    segment_at_once: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
    photo: np.ndarray,
    boxes: np.ndarray,
    margin: float | None,
) -> list[np.ndarray]:
    """All boxes on the whole photo, or with a margin each of them on its own surroundings."""
    if margin is None:
        return segment_at_once(photo, boxes)
    masks = []
    for box in boxes:
        x0, y0, x1, y1 = grown(box, margin, photo.shape[1], photo.shape[0])
        masks += segment_at_once(photo[y0:y1, x0:x1], (box - np.array([x0, y0, x0, y0]))[None])
    return masks


def grown(box: np.ndarray, margin: float, width: int, height: int) -> np.ndarray:
    """An integer box, each side moved out by a share of the longer one, inside the photo."""
    reach = round(margin * max(box[2] - box[0], box[3] - box[1]))
    low = np.maximum(box[:2] - reach, 0)
    high = np.minimum(box[2:] + reach, (width, height))
    return np.concatenate([low, high])


def build_sam(architecture: str | dict[str, Any]) -> Any:
    """A SAM without weights: a published one by name, or any size by its encoder's settings.

    The dict holds embed_dim, depth, num_heads, global_attn_indexes and, where they differ from the
    published 1024 and 256, image_px and out_chans.
    """
    import torch
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    named = isinstance(architecture, str)
    wanted = dict(ARCHITECTURES[architecture] if isinstance(architecture, str) else architecture)
    image_px, out_chans = wanted.pop("image_px", 1024), wanted.pop("out_chans", 256)
    try:
        grid = image_px // _PATCH_PX
        return Sam(
            image_encoder=ImageEncoderViT(
                img_size=image_px,
                patch_size=_PATCH_PX,
                mlp_ratio=4,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                qkv_bias=True,
                use_rel_pos=True,
                window_size=14,
                out_chans=out_chans,
                **wanted,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=out_chans,
                image_embedding_size=(grid, grid),
                input_image_size=(image_px, image_px),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(
                    depth=2,
                    embedding_dim=out_chans,
                    mlp_dim=2048 if named else 8 * out_chans,
                    num_heads=8,
                ),
                transformer_dim=out_chans,
                iou_head_depth=3,
                iou_head_hidden_dim=256,
            ),
            pixel_mean=[123.675, 116.28, 103.53],
            pixel_std=[58.395, 57.12, 57.375],
        )
    except (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"people.segment.by.architecture: {architecture}: {first}") from None
