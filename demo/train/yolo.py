"""Trains the demo's detector: a narrow YOLO11-pose of ultralytics with one class and 17 joints.

    python -m demo.train.yolo --minutes 34 --out /tmp/train/yolo

The model and the loss are ultralytics' own (AGPL-3.0); the loop is ours, since theirs needs a data
set as files and does not fit into a budget of minutes.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")

from ultralytics import __version__ as ultralytics_version
from ultralytics.nn.tasks import PoseModel
from ultralytics.utils.loss import v8PoseLoss

from curation.people.ultralytics_backends import quiet_ultralytics
from demo.train.command import Options, autocast, options, write_card
from demo.train.data import TRAINING_SEED, Photo, photos
from demo.train.loop import train
from demo.train.muon import muon
from demo.train.unseen import measure_detector, unseen_photos

quiet_ultralytics()

IMAGE_PX = 384
# Most is learned small and cheaply: (share of the budget from which on, px).
_SIZES = ((0.0, 256), (0.28, IMAGE_PX))
# Towards the end nose and eyes count more: faces are aligned by them.
_FACE_FROM, _FACE_WEIGHT = 0.7, 4.0
_LEAST_VISIBLE = 0.15  # who is more hidden than that is not taught as a person
_CROWD = 4  # from so many people on a photo is drawn _CROWD_ODDS times as often
_CROWD_ODDS = 3
_PAD = 114  # grey, as ultralytics pads
_BATCH = 8
_RATE, _MATRIX_RATE = 2e-3, 0.03  # of AdamW and of Muon
_WIDTH = 0.2
_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 2.0}  # ultralytics', but kobj
_NEAR = 0.4  # of the sigma: where our term begins to flatten
_FINEST_LAYER, _HEAD_LAYER = 16, 23  # of `layers`
_HEAD = [0, 1, 2, 3, 4]  # nose, eyes, ears
# Left and right change places in a mirrored photo.
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def layers() -> dict[str, Any]:
    """yolo11-pose.yaml of ultralytics, narrower, with fewer channels at the coarsest stride."""
    return {
        "nc": 1,
        "kpt_shape": [17, 3],
        "depth_multiple": 0.5,
        "width_multiple": _WIDTH,
        "max_channels": 768,
        "backbone": [
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 2, "C3k2", [256, False, 0.25]],
            [-1, 1, "Conv", [256, 3, 2]],
            [-1, 2, "C3k2", [512, False, 0.25]],
            [-1, 1, "Conv", [512, 3, 2]],
            [-1, 2, "C3k2", [512, True]],
            [-1, 1, "Conv", [1024, 3, 2]],
            [-1, 2, "C3k2", [1024, True]],
            [-1, 1, "SPPF", [1024, 5]],
            [-1, 2, "C2PSA", [1024]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 6], 1, "Concat", [1]],
            [-1, 2, "C3k2", [512, False]],
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 2, "C3k2", [256, False]],
            [-1, 1, "Conv", [256, 3, 2]],
            [[-1, 13], 1, "Concat", [1]],
            [-1, 2, "C3k2", [512, False]],
            [-1, 1, "Conv", [512, 3, 2]],
            [[-1, 10], 1, "Concat", [1]],
            [-1, 2, "C3k2", [1024, True]],
            [[16, 19, 22], 1, "Pose", ["nc", "kpt_shape"]],
        ],
    }


class PoseLoss(v8PoseLoss):
    """ultralytics' loss, with a term that keeps pulling on joints that are nearly right.

    Their term 1 - exp(-OKS distance) is flat within a pixel or two of an eye, and an aligned face
    shows that error. `face_weight` is how much more than others nose and eyes count in ours.
    """

    face_weight = 1.0

    def calculate_keypoints_loss(
        self,
        masks: torch.Tensor,
        target_gt_idx: torch.Tensor,
        keypoints: torch.Tensor,
        stride_tensor: torch.Tensor,
        target_bboxes: torch.Tensor,
        pred_kpts: torch.Tensor,
    ) -> Any:
        """As the method it extends; distances in units of the joint's OKS sigma."""
        place, seen = super().calculate_keypoints_loss(
            masks, target_gt_idx, keypoints, stride_tensor, target_bboxes, pred_kpts
        )
        if not masks.any():
            return place, seen
        # The call above has divided target_bboxes by the strides.
        wanted = keypoints[masks.nonzero(as_tuple=True)[0], target_gt_idx[masks]]
        stride = stride_tensor.view(1, -1).expand(masks.shape[0], -1)[masks][:, None, None]
        sides = target_bboxes[masks][:, 2:] - target_bboxes[masks][:, :2]
        scale = sides.prod(1, keepdim=True).clamp_min(1e-6).sqrt() * self.keypoint_loss.sigmas * _NEAR
        apart = (pred_kpts[masks][..., :2] - wanted[..., :2] / stride).pow(2).sum(-1).add(1e-6).sqrt()
        labelled = (wanted[..., 2] != 0).float()
        pull = torch.log1p(apart / scale) * labelled
        near = (pull.sum() + (self.face_weight - 1) * pull[:, :3].sum()) / labelled.sum().clamp_min(1)
        return place + 0.3 * near, seen


class Exact(nn.Conv2d):
    """A convolution that stays in single precision: half of it would round joints to whole pixels."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(like.in_channels, like.out_channels, like.kernel_size)
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the class it extends."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Taught(nn.Module):
    """The model with an output that is dropped at the end: where each joint is, on the finest map.

    It teaches the layers below from every joint directly; the model's own head learns joints only as
    distances from the middle of a person, slowly. With it the eyes were found a fifth nearer.
    """

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.model = model
        finest = model.model[_FINEST_LAYER]
        self.heat = nn.Conv2d(finest.cv2.conv.out_channels, 17, 1)
        nn.init.constant_(self.heat.bias, -4.0)
        for level in model.model[_HEAD_LAYER].cv4:
            level[2] = Exact(level[2])
        self._seen: list[torch.Tensor] = []
        finest.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._seen = [output]

    def forward(self, images: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The model's own answer, and logits [n, 17, h / 8, w / 8]."""
        answer = self.model(images)
        return answer, self.heat(self._seen.pop())


def loss_of_heat(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy against a bump of one cell around each joint that is there; bumps count more."""
    cells = logits.shape[-1]
    joints = batch["keypoints"]
    middles = torch.arange(cells, device=logits.device) + 0.5
    across = torch.exp(-((middles - joints[..., :1] * cells) ** 2) / 2)
    down = torch.exp(-((middles - joints[..., 1:2] * cells) ** 2) / 2)
    bumps = down[..., :, None] * across[..., None, :] * (joints[..., 2] > 0)[..., None, None]
    wanted = torch.zeros_like(logits)
    for photo, bump in zip(batch["batch_idx"].long().tolist(), bumps, strict=True):
        wanted[photo] = torch.maximum(wanted[photo], bump)
    entropy = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return 4 * ((1 + 20 * wanted) * entropy).sum(1).mean()


def batch_of(collection: list[Photo], step: int, seed: int, px: int) -> dict[str, torch.Tensor]:
    """The training batch of a step: letterboxed photos, some smaller and shifted, half mirrored."""
    random = np.random.default_rng((seed, step))
    odds = np.array([_CROWD_ODDS if len(photo.boxes) >= _CROWD else 1 for photo in collection], float)
    odds /= odds.sum()
    images, boxes, joints, places = [], [], [], []
    for place, number in enumerate(random.choice(len(collection), _BATCH, p=odds)):
        photo = collection[number]
        shrink = 1.0 if random.random() < 0.5 else float(random.uniform(0.6, 1.0))
        corner = random.random(2) if shrink < 1 else np.array([0.5, 0.5])
        canvas, scale, shift = letterbox(photo.pixels(), px, shrink, corner)
        taught = photo.visible >= _LEAST_VISIBLE
        box = photo.boxes[taught] * scale + np.tile(shift, 2)
        joint = photo.keypoints[taught]
        joint[..., :2] = joint[..., :2] * scale + shift
        head = joint[:, _HEAD, 2]
        joint[:, _HEAD, 2] = np.where(head == 2, 2, 0)  # "there" means seen where faces are concerned
        if random.random() < 0.5:
            canvas = canvas[:, ::-1]
            box = np.stack([px - box[:, 2], box[:, 1], px - box[:, 0], box[:, 3]], axis=1)
            joint[..., 0] = px - joint[..., 0]
            joint = joint[:, MIRRORED]
        images.append(canvas)
        boxes.append(np.concatenate([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], axis=1))
        joints.append(joint)
        places.append(np.full(len(box), place))
    stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    keypoints = torch.from_numpy(np.concatenate(joints)).float()
    keypoints[..., :2] /= px
    owner = torch.from_numpy(np.concatenate(places)).float()
    return {
        "img": torch.from_numpy(stacked).float() / 255,
        "bboxes": torch.from_numpy(np.concatenate(boxes)).float() / px,
        "keypoints": keypoints,
        "cls": torch.zeros(len(owner), 1),
        "batch_idx": owner,
    }


def letterbox(
    pixels: np.ndarray, px: int, shrink: float, corner: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """The photo on a grey square of `px`, as ultralytics lays it; `corner` 0.5, 0.5 is the middle.

    Returns the canvas, the scale and the shift that bring px of the photo to px of the canvas.
    """
    height, width = pixels.shape[:2]
    scale = px / max(height, width) * shrink
    size = (round(width * scale), round(height * scale))
    canvas = np.full((px, px, 3), _PAD, np.uint8)
    x, y = ((px - np.array(size)) * corner).astype(int)
    canvas[y : y + size[1], x : x + size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return canvas, scale, np.array([x, y], np.float32)


def build(seed: int) -> PoseModel:
    """The untrained model."""
    torch.manual_seed(seed)
    model = PoseModel(layers(), nc=1, data_kpt_shape=(17, 3), verbose=False)
    model.names = {0: "person"}
    model.args = SimpleNamespace(**_GAINS)
    return model


def export(trained: nn.Module, file: Path) -> None:
    """A checkpoint as ultralytics saves one: the whole module in half precision."""
    model = build(0)  # without the parts that only training needs
    model.load_state_dict(trained.state_dict())
    model.args = {"task": "pose", "imgsz": IMAGE_PX, **_GAINS}
    model.task = "pose"
    checkpoint = {
        "epoch": -1,
        "model": model.cpu().half().eval(),
        "ema": None,
        "optimizer": None,
        "train_args": {"task": "pose", "imgsz": IMAGE_PX},
        "date": datetime.now(UTC).date().isoformat(),
        "version": ultralytics_version,
        "license": "AGPL-3.0",
    }
    temporary = file.with_suffix(".new")
    torch.save(checkpoint, temporary)
    os.replace(temporary, file)


def main(chosen: Options) -> None:
    """Trains, exports yolo_pose.pt and measures it on unseen worlds."""
    collection = photos(chosen.cache, TRAINING_SEED, chosen.amount, chosen.workers)
    model = build(chosen.seed).to(chosen.device, memory_format=torch.channels_last)
    criterion = PoseLoss(model)
    taught = Taught(model).to(chosen.device)
    outer = tuple(f"model.model.{_HEAD_LAYER}.cv{kind}.{at}.2." for kind in (2, 3, 4) for at in range(3))
    optimizer = muon(taught, _RATE, _MATRIX_RATE, ("model.model.0.", "heat.", *outer), decay=0.02)

    def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
        criterion.face_weight = _FACE_WEIGHT if share >= _FACE_FROM else 1.0
        px = max(size for start, size in _SIZES if share >= start)
        batch = {k: v.to(chosen.device) for k, v in batch_of(collection, step, chosen.seed, px).items()}
        image = batch["img"].contiguous(memory_format=torch.channels_last)
        with autocast(chosen):
            predictions, heat = taught(image)
        predictions = {
            name: [part.float() for part in value] if isinstance(value, list) else value.float()
            for name, value in predictions.items()
        }
        losses, parts = criterion(predictions, batch)
        loss = losses.sum() / _BATCH + loss_of_heat(heat.float(), batch)
        return loss, {name: float(value) for name, value in parts.items()}

    averaged, steps = train(chosen.out, chosen.minutes, taught, optimizer, loss_of)
    file = chosen.weights / "yolo_pose.pt"
    export(averaged.model, file)
    found = measure_detector(file, IMAGE_PX, unseen_photos(chosen.cache, chosen.workers))
    write_card(
        file,
        title="YOLO11-pose, narrow",
        made_of=f"`yolo11-pose` of ultralytics {ultralytics_version}, width {_WIDTH}, input {IMAGE_PX} px, "
        f"one class, 17 COCO joints",
        licence="AGPL-3.0: model code and loss are ultralytics', and their checkpoint format pickles them",
        chosen=chosen,
        data=f"{len(collection)} photos of {chosen.amount} worlds",
        steps=steps,
        batch=_BATCH,
        figures=found,
    )


if __name__ == "__main__":
    main(options(__doc__, amount=30, amount_means="worlds", minutes=34))
