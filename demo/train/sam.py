"""Trains the demo's segmenter: a SAM of segment-anything with a small image encoder, asked by boxes.

    python -m demo.train.sam --minutes 12 --out /tmp/train/sam

Each person is cut out with some surroundings, as the backend does with `crop_margin`: on a whole photo
of 448 px people are too small for exact borders, and a small encoder does not learn all their sizes.
Only the single-mask answer is trained, since that is the one the backend takes. A second output,
dropped at the end, labels body parts straight from the embedding: it teaches the encoder from every
pixel.
"""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    interpolate,
    pixel_shuffle,
)

from curation.people.atr import REGIONS
from curation.people.boxes import whole_box
from curation.people.segment_sam import build_sam, grown
from demo.train.command import Options, autocast, options, write_card
from demo.train.data import TRAINING_SEED, Photo, photos
from demo.train.loop import train
from demo.train.muon import muon
from demo.train.unseen import measure_segmenter, unseen_photos
from demo.train.yolo import IMAGE_PX as DETECTOR_PX

# A crop of 384 px is 24 × 24 patches: few enough that every layer sees all of them.
ARCHITECTURE: dict[str, Any] = {
    "image_px": 384,
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "global_attn_indexes": [0, 1, 2, 3],
    "out_chans": 64,
}
CROP_MARGIN = 0.1
"""What a crop shows around a box, as a share of its longer side; pipeline `demo` says the same."""
_PX = int(ARCHITECTURE["image_px"])
# The first parts are learned small and cheaply: (share of the budget from which on, px).
_SIZES = ((0.0, 128), (0.2, 256), (0.5, _PX))
_BATCH = 16
_RATE, _MATRIX_RATE = 1.5e-3, 0.02  # of AdamW and of Muon
_OUTER = ("parts.", "rel_pos", "pos_embed", "patch_embed", "prompt_encoder", "iou_token", "mask_tokens")
_JITTER = 0.03  # of a box's sides: how far a detector's borders are off
_LEAST_VISIBLE = 0.15
_MOST_PEOPLE = 4  # cut out of one photo of a batch
_GRID = (96, 64)  # points of a box, down and across, at which masks are compared
_PART_PX = 4  # side of the squares whose part the second output tells
_PARTS = len(REGIONS) + 1  # background, the four regions below full_body, and the rest of a person
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


class Asked(nn.Module):
    """A SAM with the output that is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.sam = build_sam(ARCHITECTURE)
        channels = int(ARCHITECTURE["out_chans"])
        self.parts = nn.Conv2d(channels, _PARTS * (16 // _PART_PX) ** 2, 1)

    def forward(
        self, images: torch.Tensor, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """images [n, 3, px, px] normalised; boxes [n, 4] in px, one of each image.

        Returns mask logits [n, 1, px / 4, px / 4], predicted IoUs [n], logits of the parts [n, 6,
        px / 4, px / 4]. The same as MaskDecoder with multimask_output=False, but for several images
        at once, and without the masks that nobody asked for.
        """
        embedded = self._embed(images)
        # The prompt encoder is told the size that it is asked at.
        prompts, decoder, px = self.sam.prompt_encoder, self.sam.mask_decoder, images.shape[-1]
        prompts.input_image_size, prompts.image_embedding_size = (px, px), (px // 16, px // 16)
        sparse, dense = prompts(points=None, boxes=boxes, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(boxes), -1, -1), sparse], dim=1)
        source = embedded + dense
        places = prompts.get_dense_pe().expand(len(boxes), -1, -1, -1)
        answers, source = decoder.transformer(source, places, tokens)
        large = decoder.output_upscaling(source.transpose(1, 2).reshape(dense.shape))
        weights = decoder.output_hypernetworks_mlps[0](answers[:, 1])
        masks = (weights[:, None] @ large.flatten(2)).reshape(len(boxes), 1, *large.shape[2:])
        ious = decoder.iou_prediction_head(answers[:, 0])[:, 0]
        return masks, ious, pixel_shuffle(self.parts(embedded), 16 // _PART_PX)

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        """What the image encoder does, also for smaller images: its places are scaled to them."""
        encoder = self.sam.image_encoder
        x = encoder.patch_embed(images)
        places = encoder.pos_embed
        if places.shape[1:3] != x.shape[1:3]:
            small = interpolate(places.permute(0, 3, 1, 2), x.shape[1:3], mode="area")
            places = small.permute(0, 2, 3, 1)
        x = x + places
        for block in encoder.blocks:
            x = block(x)
        return encoder.neck(x.permute(0, 3, 1, 2))


def batch_of(collection: list[Photo], step: int, seed: int, px: int) -> dict[str, torch.Tensor]:
    """Crops of people, half mirrored, with jittered boxes and what is true inside them.

    images float32 [16, 3, px, px] normalised; parts int64 [16, px / 4, px / 4]; boxes [16, 4] in px of
    their crop; masks float32 [16, 96, 64]: the true mask at the middles of a grid
    over the box.
    """
    random = np.random.default_rng((seed, step))
    images = np.zeros((_BATCH, px, px, 3), np.float32)
    parts = np.zeros((_BATCH, px // _PART_PX, px // _PART_PX), np.int64)
    boxes, masks = np.zeros((_BATCH, 4), np.float32), np.zeros((_BATCH, *_GRID), np.float32)
    place = 0
    while place < _BATCH:
        photo = collection[int(random.integers(len(collection)))]
        pixels = photo.pixels()
        height, width = pixels.shape[:2]
        whole = _parts_of(photo, height, width)
        shown = random.permutation(np.flatnonzero(photo.visible >= _LEAST_VISIBLE))
        for person in shown[: min(_MOST_PEOPLE, _BATCH - place)]:
            own, labels = photo.label_map(int(person))
            sides = np.tile(photo.boxes[person, 2:] - photo.boxes[person, :2], 2)
            box = whole_box(photo.boxes[person] + random.normal(0, _JITTER, 4) * sides, width, height)
            mask = sampled(labels > 0, own, box)
            x0, y0, x1, y1 = grown(box, CROP_MARGIN, width, height)
            crop, truth, box = pixels[y0:y1, x0:x1], whole[y0:y1, x0:x1], box - [x0, y0, x0, y0]
            if random.random() < 0.5:
                crop, truth, mask = crop[:, ::-1], truth[:, ::-1], mask[:, ::-1]
                box = np.array([x1 - x0 - box[2], box[1], x1 - x0 - box[0], box[3]])
            scale = px / max(crop.shape[:2])
            size = (int(crop.shape[1] * scale + 0.5), int(crop.shape[0] * scale + 0.5))
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            small = cv2.resize(np.ascontiguousarray(crop), size, interpolation=how)
            images[place, : size[1], : size[0]] = (small - _MEAN) / _STD
            grid = (np.arange(px // _PART_PX) + 0.5) * _PART_PX / scale
            rows, columns = grid[grid < crop.shape[0]].astype(int), grid[grid < crop.shape[1]].astype(int)
            parts[place, : len(rows), : len(columns)] = truth[rows][:, columns]
            boxes[place], masks[place] = box * scale, mask
            place += 1
    return {
        "images": torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        "parts": torch.from_numpy(parts),
        "boxes": torch.from_numpy(boxes),
        "masks": torch.from_numpy(masks),
    }


def _parts_of(photo: Photo, height: int, width: int) -> np.ndarray:
    """uint8 [h, w]: which part of somebody each pixel of a photo shows, 0 for none."""
    whole = np.zeros((height, width), np.uint8)
    for person in range(len(photo.boxes)):
        own, labels = photo.label_map(person)
        window = whole[own[1] : own[3], own[0] : own[2]]
        np.copyto(window, _PART_OF[labels], where=labels > 0)
    return whole


def _part_table() -> np.ndarray:
    table = np.full(256, _PARTS - 1, np.uint8)
    table[0] = 0
    for number, members in enumerate(list(REGIONS.values())[1:], start=1):
        table[list(members)] = number
    return table


_PART_OF = _part_table()


def sampled(mask: np.ndarray, own: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A mask on its box `own`, averaged over the cells of a grid of 96 × 64 over another box."""
    across, down = (box[2] - box[0]) / _GRID[1], (box[3] - box[1]) / _GRID[0]
    matrix = np.array([[1 / across, 0, (own[0] - box[0]) / across], [0, 1 / down, (own[1] - box[1]) / down]])
    # Middles of pixels, not their corners, are what warpAffine maps.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) * 0.5 - 0.5
    smooth = mask.astype(np.float32)
    if max(across, down) > 1:
        smooth = cv2.blur(
            smooth, (max(round(across), 1), max(round(down), 1)), borderType=cv2.BORDER_CONSTANT
        )
    return np.asarray(cv2.warpAffine(smooth, matrix, _GRID[::-1], flags=cv2.INTER_LINEAR))


def loss_of_masks(
    logits: torch.Tensor, ious: torch.Tensor, boxes: torch.Tensor, truth: torch.Tensor, px: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal, dice and IoU losses of n people, weighed as in the SAM paper, and cross entropy; mean IoU.

    The logits are read inside each box only: what is outside is cut off by the backend.
    """
    down = (torch.arange(_GRID[0], device=logits.device) + 0.5) / _GRID[0]
    across = (torch.arange(_GRID[1], device=logits.device) + 0.5) / _GRID[1]
    y = boxes[:, 1, None] + down * (boxes[:, 3] - boxes[:, 1])[:, None]
    x = boxes[:, 0, None] + across * (boxes[:, 2] - boxes[:, 0])[:, None]
    places = torch.stack(
        [
            x[:, None, :].expand(-1, *_GRID) / px * 2 - 1,
            y[:, :, None].expand(-1, *_GRID) / px * 2 - 1,
        ],
        dim=-1,
    )
    read = grid_sample(logits, places, align_corners=False, padding_mode="border")[:, 0]
    chance = read.sigmoid()
    entropy = binary_cross_entropy_with_logits(read, truth, reduction="none")
    focal = (entropy * (truth - chance).abs().detach().square()).mean()
    overlap = (chance * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (chance.sum((1, 2)) + truth.sum((1, 2)) + 1)
    with torch.no_grad():
        found, true = read > 0, truth > 0.5
        reached = (found & true).sum((1, 2)) / (found | true).sum((1, 2)).clamp_min(1)
    iou = (ious - reached).square().mean()
    return 20 * focal + dice.mean() + entropy.mean() + iou, reached.mean()


def export(sam: nn.Module, file: Path) -> None:
    """The state dict in half precision; the backend's modules turn it into single."""
    state = {
        name: value.detach().cpu().half() if value.dtype.is_floating_point else value.cpu()
        for name, value in sam.state_dict().items()
    }
    temporary = file.with_suffix(".new")
    torch.save(state, temporary)
    os.replace(temporary, file)


def main(chosen: Options) -> None:
    """Trains, exports sam.pth and measures it on unseen worlds; needs yolo_pose.pt to measure."""
    collection = [
        photo
        for photo in photos(chosen.cache, TRAINING_SEED, chosen.amount, chosen.workers)
        if (photo.visible >= _LEAST_VISIBLE).any()
    ]
    torch.manual_seed(chosen.seed)
    model = Asked().to(chosen.device)
    for name, parameter in model.named_parameters():
        if "pos_embed" in name:
            nn.init.trunc_normal_(parameter, std=0.02)
    optimizer = muon(model, _RATE, _MATRIX_RATE, _OUTER, decay=0.02)

    def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
        px = max(size for start, size in _SIZES if share >= start)
        batch = batch_of(collection, step, chosen.seed, px)
        batch = {name: value.to(chosen.device) for name, value in batch.items()}
        with autocast(chosen):
            masks, ious, parts = model(batch["images"], batch["boxes"])
        loss, reached = loss_of_masks(masks.float(), ious.float(), batch["boxes"], batch["masks"], px)
        return loss + cross_entropy(parts.float(), batch["parts"]), {"mask_iou": float(reached)}

    averaged, steps = train(chosen.out, chosen.minutes, model, optimizer, loss_of)
    file = chosen.weights / "sam.pth"
    export(averaged.sam, file)
    yolo = chosen.weights / "yolo_pose.pt"
    unseen = unseen_photos(chosen.cache, chosen.workers)
    found = measure_segmenter(file, ARCHITECTURE, CROP_MARGIN, yolo, DETECTOR_PX, unseen)
    write_card(
        file,
        title="segment-anything, small",
        made_of=f"`Sam` of segment-anything 1.0 with the encoder `{ARCHITECTURE}`, asked for one person's "
        f"crop at a time (margin {CROP_MARGIN:g})",
        licence="ours; the model's code is Apache-2.0",
        chosen=chosen,
        data=f"{len(collection)} photos of {chosen.amount} worlds",
        steps=steps,
        batch=_BATCH,
        figures=found,
    )


if __name__ == "__main__":
    main(options(__doc__, amount=30, amount_means="worlds", minutes=12))
