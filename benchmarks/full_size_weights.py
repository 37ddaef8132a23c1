"""Random weights of the published full sizes, in the files that the backends open. Nothing is downloaded.

Sizes are those that the authors publish: YOLO11x-pose by its YAML (ultralytics), SAM ViT-H by
segment_anything, SegFormer-B2 of Xie et al. 2021 (table 6) with 18 labels, IResNet-50 as ArcFace's authors
use it (Deng et al. 2019, after Han et al. 2017: batch normalisation first, PReLU, no pooling).
"""

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from curation.people.atr import ATR_LABELS
from curation.people.segment_sam import build_sam
from curation.people.ultralytics_backends import quiet_ultralytics
from demo.train.onnx_file import OnnxGraph

IRESNET_50 = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, blocks) of each stage
SEGFORMER_B2 = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768}
_FACE_PX = 112


def write_yolo_pose(file: Path, scale: str = "x") -> int:
    """A pose model of one class and 17 joints, stored in half precision as published. → parameters.

    Its scores are raised to about one half, so that suppression gets the most that it can: an untrained
    model finds nobody, and would measure nothing of what comes behind the network.
    """
    quiet_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import PoseModel

    torch.manual_seed(1)
    model = PoseModel(f"yolo11{scale}-pose.yaml", nc=1, data_kpt_shape=(17, 3), verbose=False)
    model.args = dict(get_cfg())
    for branch in model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
    torch.save({"model": deepcopy(model).half(), "train_args": {}}, file)
    return sum(parameter.numel() for parameter in model.parameters())


def write_sam(file: Path, architecture: str | dict[str, object] = "vit_h") -> int:
    """→ parameters."""
    torch.manual_seed(2)
    sam = build_sam(architecture)
    torch.save(sam.state_dict(), file)
    return sum(parameter.numel() for parameter in sam.parameters())


def write_segformer(folder: Path, **sizes: object) -> int:
    """A folder as transformers writes it; `sizes` in the place of SEGFORMER_B2. → parameters."""
    torch.manual_seed(3)
    config = SegformerConfig(
        num_labels=len(ATR_LABELS), id2label=dict(enumerate(ATR_LABELS)), **{**SEGFORMER_B2, **sizes}
    )
    model = SegformerForSemanticSegmentation(config)
    model.save_pretrained(folder)
    SegformerImageProcessor().save_pretrained(folder)
    return int(model.num_parameters())


def write_iresnet(file: Path, stages: tuple[tuple[int, int], ...] = IRESNET_50, width: int = 512) -> int:
    """An ONNX file: float32 [n, 3, 112, 112] → [n, width]. Stored in half precision. → parameters."""
    graph, random, count = OnnxGraph(), np.random.default_rng(4), 0

    def weight(name: str, *shape: int, constant: float | None = None) -> str:
        nonlocal count
        count += math.prod(shape)
        spread = math.sqrt(2 / max(math.prod(shape[1:]), 1))
        values = random.normal(0, spread, shape) if constant is None else np.full(shape, constant)
        return graph.weight(name, values)

    def norm(source: str, name: str, channels: int) -> str:
        inputs = [weight(f"{name}.{part}", channels, constant=float(part in ("scale", "variance")))
                  for part in ("scale", "shift", "mean", "variance")]  # fmt: skip
        return graph.node("BatchNormalization", [source, *inputs], name)

    def conv(source: str, name: str, taken: int, given: int, side: int, stride: int) -> str:
        kernel = weight(f"{name}.kernel", given, taken, side, side)
        pads = [side // 2] * 4
        convolved = graph.node(
            "Conv", [source, kernel], f"{name}.conv", kernel_shape=[side] * 2, strides=[stride] * 2, pads=pads
        )
        return norm(convolved, name, given)

    def prelu(source: str, name: str, channels: int) -> str:
        return graph.node("PRelu", [source, weight(f"{name}.slope", channels, 1, 1, constant=0.25)], name)

    channels = stages[0][0]
    x = prelu(conv("face", "stem", 3, channels, 3, 1), "stem.prelu", channels)
    for stage, (wider, blocks) in enumerate(stages):
        for block in range(blocks):
            name, stride = f"stage{stage}.{block}", 1 if block else 2
            inner = conv(norm(x, f"{name}.first", channels), f"{name}.a", channels, wider, 3, 1)
            inner = conv(prelu(inner, f"{name}.prelu", wider), f"{name}.b", wider, wider, 3, stride)
            beside = x if block else conv(x, f"{name}.beside", channels, wider, 1, stride)
            x = graph.node("Add", [inner, beside], f"{name}.sum")
            channels = wider
    side = _FACE_PX // 2 ** len(stages)
    flat = graph.node("Flatten", [norm(x, "last", channels)], "flat", axis=1)
    matrix = weight("embed.matrix", channels * side**2, width)
    embedded = graph.node("Gemm", [flat, matrix, weight("embed.shift", width, constant=0.0)], "vector")
    graph.write(file, ("face", (3, _FACE_PX, _FACE_PX)), (norm(embedded, "embedding", width), (width,)))
    return count


WRITERS: dict[str, Callable[[Path], int]] = {
    "yolo11-pose": write_yolo_pose,
    "sam-vit-h": write_sam,
    "segformer-clothes": write_segformer,
    "arcface-r50": write_iresnet,
}
"""By the name of the model's card in pipelines.yaml."""
