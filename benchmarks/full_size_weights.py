"""Random weights of the published full sizes, in the files that the backends open. Nothing is downloaded.

Sizes are those that the authors publish: YOLO11x-pose by its YAML (ultralytics), SAM ViT-H by
segment_anything, SegFormer-B2 of Xie et al. 2021 (table 6) with 18 labels, IResNet-50 as ArcFace's authors
use it (Deng et al. 2019, after Han et al. 2017: batch normalisation first, PReLU, no pooling), D-FINE-X by
its YAML (dfine_hgnetv2_x: HGNetV2-B5), ViTPose (base) by the defaults of transformers, SAM 2.1 large by its
YAML (sam2.1_hiera_l). In the place of SFace, a MobileFaceNet, stands a small IResNet.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DFineConfig,
    DFineForObjectDetection,
    PreTrainedModel,
    RTDetrImageProcessor,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VisionConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

from curation.people.atr import ATR_LABELS
from curation.people.segment_sam import build_sam
from curation.people.ultralytics_backends import quiet_ultralytics
from curation.weights.onnx_file import OnnxGraph

SAM2_LARGE = {
    "hidden_size": 144,
    "num_attention_heads": 2,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "global_attention_blocks": [23, 33, 43],
    "window_positional_embedding_background_size": [7, 7],
}
D_FINE_X = {
    "backbone_config": {
        "model_type": "hgnet_v2", "stem_channels": [3, 32, 64], "stage_in_channels": [64, 128, 512, 1024],
        "stage_mid_channels": [64, 128, 256, 512], "stage_out_channels": [128, 512, 1024, 2048],
        "stage_num_blocks": [1, 2, 5, 2], "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384, 384, 384],
}  # fmt: skip
IRESNET_50 = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, blocks) of each stage
SEGFORMER_B2 = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768}
_FACE_PX = 112


def write_yolo_pose(file: Path, scale: str = "x") -> int:
    """A pose model of one class and 17 joints, stored in half precision as published. → parameters.

    Its scores are raised to about one half, so that suppression gets the most that it can: an untrained
    model finds nobody, and would measure nothing of what comes behind the network.
    """
    # A class for each of COCO's things is what the YAML says; the published pose models know people alone.
    stated = Path(quiet_ultralytics().__file__ or "").parent / "cfg" / "models" / "11" / "yolo11-pose.yaml"
    sizes = file.with_name(f"yolo11{scale}-pose.yaml")  # the scale is read off the name
    sizes.write_text(stated.read_text().replace("nc: 80", "nc: 1"))
    torch.manual_seed(1)
    yolo = quiet_ultralytics().YOLO(str(sizes), task="pose")
    for branch in yolo.model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
    yolo.save(str(file))
    return sum(parameter.numel() for parameter in yolo.model.parameters())


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
    return _saved(model, SegformerImageProcessor(), folder)


def write_d_fine(folder: Path, **sizes: object) -> int:
    """80 labels, of which the first is a person; `sizes` in the place of D_FINE_X. → parameters."""
    torch.manual_seed(5)
    labels = {0: "person", **{number: f"thing{number}" for number in range(1, 80)}}
    model = DFineForObjectDetection(DFineConfig(id2label=labels, **{**D_FINE_X, **sizes}))
    return _saved(model, RTDetrImageProcessor(), folder)


def write_vitpose(folder: Path, **sizes: int) -> int:
    """17 points of COCO; `sizes` of the backbone in the place of the base model's. → parameters."""
    torch.manual_seed(6)
    stages = {"out_features": [f"stage{sizes.get('num_hidden_layers', 12)}"]}
    backbone = VitPoseBackboneConfig(**sizes, **stages)
    model = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone.to_dict(), num_labels=17))
    return _saved(model, VitPoseImageProcessor(), folder)


def write_sam2(folder: Path, **sizes: object) -> int:
    """`sizes` of the image encoder in the place of SAM2_LARGE. → parameters."""
    torch.manual_seed(7)
    encoder = Sam2HieraDetConfig(**{**SAM2_LARGE, **sizes})
    vision = Sam2VisionConfig(
        backbone_config=encoder.to_dict(), backbone_channel_list=encoder.embed_dim_per_stage[::-1]
    )
    model = Sam2Model(Sam2Config(vision_config=vision.to_dict()))
    return _saved(model, Sam2Processor(image_processor=Sam2ImageProcessor()), folder)


def _saved(model: PreTrainedModel, processor: Any, folder: Path) -> int:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
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


def write_sface(file: Path) -> int:
    """float32 [n, 3, 112, 112] → [n, 128], in the place of SFace. → parameters."""
    return write_iresnet(file, ((32, 1), (64, 2), (128, 4), (256, 3)), width=128)


WRITERS: dict[str, Callable[[Path], int]] = {
    "yolo11-pose": write_yolo_pose,
    "sam-vit-h": write_sam,
    "segformer-clothes": write_segformer,
    "arcface-r50": write_iresnet,
    "dfine-x": write_d_fine,
    "vitpose-b": write_vitpose,
    "sam2.1-l": write_sam2,
    "sface": write_sface,
}
"""By the name of the model's card in pipelines.yaml."""
