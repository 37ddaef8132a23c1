"""Trains the demo's parser: a small SegFormer of transformers that labels a person's crop.

    python -m demo.train.segformer --minutes 18 --out /tmp/train/segformer

It learns from crops by boxes as a detector draws them, everything around the person included, since
the stage that asks it gives it such crops.
"""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import cross_entropy, interpolate
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
from transformers import __version__ as transformers_version

from curation.people.atr import ATR_LABELS
from curation.people.boxes import whole_box
from demo.train.command import Options, autocast, options, write_card
from demo.train.data import TRAINING_SEED, Photo, photos
from demo.train.loop import train
from demo.train.muon import muon
from demo.train.unseen import measure_parser, true_labels, unseen_photos
from demo.train.yolo import IMAGE_PX as DETECTOR_PX

SIZE = (256, 128)  # height, width of the model's input; a crop is stretched to it
_BATCH = 16
_RATE, _MATRIX_RATE = 2e-3, 0.02  # of AdamW and of Muon
_JITTER = 0.03  # of a box's sides: how far a detector's borders are off
_LEAST_VISIBLE = 0.15
_BACKGROUND = 0.3  # weight of background: the mask knows it better, and cuts it off
_OUTER = ("stages.0.patch_embeddings.", "decode_head.classifier.")
# Left and right of these labels change places in a mirrored crop.
_SIDES = ((9, 10), (12, 13), (14, 15))


def batch_of(
    collection: list[Photo], people: list[tuple[int, int]], step: int, seed: int, processor: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """(crops as the processor makes them, labels int64 [n, 256, 128]) of a step; half are mirrored."""
    random = np.random.default_rng((seed, step))
    crops, labels = [], []
    for place in random.integers(len(people), size=_BATCH):
        number, person = people[place]
        photo = collection[number]
        pixels = photo.pixels()
        own = photo.boxes[person]
        sides = np.tile(own[2:] - own[:2], 2)
        box = whole_box(own + random.normal(0, _JITTER, 4) * sides, pixels.shape[1], pixels.shape[0])
        x0, y0, x1, y1 = box
        crop, true = pixels[y0:y1, x0:x1], true_labels(photo, person, box)
        if random.random() < 0.5:
            crop, true = crop[:, ::-1], mirrored(true)
        crops.append(np.ascontiguousarray(crop))
        labels.append(cv2.resize(true, SIZE[::-1], interpolation=cv2.INTER_NEAREST))
    inputs = processor(images=crops, input_data_format="channels_last", return_tensors="pt")  # type: ignore[operator]
    return inputs["pixel_values"], torch.from_numpy(np.stack(labels)).long()


def mirrored(labels: np.ndarray) -> np.ndarray:
    """A label map seen in a mirror: left and right are another side."""
    table = np.arange(256, dtype=np.uint8)
    for left, right in _SIDES:
        table[left], table[right] = right, left
    return np.ascontiguousarray(table[labels[:, ::-1]])


def build(seed: int) -> SegformerForSemanticSegmentation:
    """The untrained model."""
    torch.manual_seed(seed)
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=len(ATR_LABELS),
            id2label=dict(enumerate(ATR_LABELS)),
            label2id={name: number for number, name in enumerate(ATR_LABELS)},
            hidden_sizes=[32, 48, 96, 160],
            depths=[1, 1, 2, 2],
            num_attention_heads=[1, 2, 4, 4],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=64,
            drop_path_rate=0.0,
            classifier_dropout_prob=0.0,
        )
    )


def export(model: SegformerForSemanticSegmentation, processor: object, folder: Path) -> None:
    """The folder that from_pretrained reads; weights in half precision, to be loaded in single."""
    temporary = folder.with_suffix(".new")
    shutil.rmtree(temporary, ignore_errors=True)
    half = model.cpu().half().eval()
    half.save_pretrained(temporary)
    half.config.dtype = "float32"  # without it transformers would compute in half precision too
    half.config.save_pretrained(temporary)
    (temporary / "model.safetensors").chmod(0o644)
    processor.save_pretrained(temporary)  # type: ignore[attr-defined]
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def main(chosen: Options) -> None:
    """Trains, exports segformer/ and measures it on unseen worlds; needs yolo_pose.pt to measure."""
    collection = photos(chosen.cache, TRAINING_SEED, chosen.amount, chosen.workers)
    people = [
        (number, person)
        for number, photo in enumerate(collection)
        for person, visible in enumerate(photo.visible)
        if visible >= _LEAST_VISIBLE
    ]
    processor = SegformerImageProcessor(size={"height": SIZE[0], "width": SIZE[1]}, do_reduce_labels=False)
    model = build(chosen.seed).to(chosen.device)
    optimizer = muon(model, _RATE, _MATRIX_RATE, _OUTER, decay=0.02)

    weight = torch.ones(len(ATR_LABELS), device=chosen.device)
    weight[0] = _BACKGROUND

    def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
        crops, labels = batch_of(collection, people, step, chosen.seed, processor)
        with autocast(chosen):
            logits = model(crops.to(chosen.device)).logits
        # The backend enlarges logits before it takes the best label, and so does the loss.
        large = interpolate(logits.float(), (SIZE[0] // 2, SIZE[1] // 2), mode="bilinear")
        wanted = labels[:, 1::2, 1::2].to(chosen.device)
        right = (large.detach().argmax(1) == wanted)[wanted > 0].float().mean()
        return cross_entropy(large, wanted, weight), {"right_inside": float(right)}

    averaged, steps = train(chosen.out, chosen.minutes, model, optimizer, loss_of)
    folder = chosen.weights / "segformer"
    export(averaged, processor, folder)
    found = measure_parser(
        folder, chosen.weights / "yolo_pose.pt", DETECTOR_PX, unseen_photos(chosen.cache, chosen.workers)
    )
    write_card(
        folder,
        title="SegFormer, small",
        made_of=f"`SegformerForSemanticSegmentation` of transformers {transformers_version}, "
        f"widths 32 to 160, input {SIZE[0]} × {SIZE[1]} px, the 18 ATR labels",
        licence="ours; the model's code is Apache-2.0",
        chosen=chosen,
        data=f"{len(people)} people on {len(collection)} photos of {chosen.amount} worlds",
        steps=steps,
        batch=_BATCH,
        figures=found,
    )


if __name__ == "__main__":
    main(options(__doc__, amount=30, amount_means="worlds", minutes=18))
