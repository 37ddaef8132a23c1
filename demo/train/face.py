"""Trains the demo's face embedder: a small convolutional network with a margin loss over identities.

    python -m demo.train.face --minutes 15 --out /tmp/train/face

Faces are cut out by the true eyes and nose, moved by as much as the detector errs, and laid on the
ArcFace template by the product's own alignment. The loss is CosFace (Wang et al., CVPR 2018); beside it
the features that the embedding is made of must tell the traits that a face was drawn from, so that few
thousand people teach what the next ones differ in.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, normalize
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from curation.people.face import ALIGNED_PX, align_face
from curation.people.face_keypoints import with_mouth
from curation.weights.onnx_file import OnnxGraph
from demo.train.command import Options, autocast, options, write_card
from demo.train.data import (
    FACE_SEED,
    PHOTOS_A_WORLD,
    TRAINING_SEED,
    FaceCrop,
    faces,
    faces_of,
    people_of_faces,
    photos,
)
from demo.train.loop import train
from demo.train.muon import muon
from demo.train.unseen import measure_embedder, unseen_photos
from demo.train.yolo import IMAGE_PX as DETECTOR_PX
from demo.world import Identity, make_world
from demo.world.traits import BEARDS, FACE_RANGES, GLASSES, HAIR_FORMS

SIZE = 128
"""Numbers of an embedding."""
_WORLDS = 30  # whose photos are searched for faces, too
_BATCH = 64
_RATE, _MATRIX_RATE = 2e-3, 0.02  # of AdamW and of Muon
_SCALE, _MARGIN = 32.0, 0.3  # of CosFace
_FEATURES = 160
_TRAITS = 4.0  # weight of the traits' squared error, beside CosFace's
# How far the detector is off, as standard deviations in distances of the eyes, measured on unseen
# worlds: all three points together, and each by itself.
_SHIFT, _JITTER = 0.12, 0.07
_SHRINK = 0.35  # a face is shown as small as this share of its size, as in a crowd
_SMALLEST_PX = 9.0  # distance of the eyes below which no face is shrunk


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _layer(width, width), _layer(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, width, h, w] → the same shape."""
        return x + self.second(self.first(x))


class Embedder(nn.Module):
    """[n, 3, 112, 112], values -1 to 1 → [n, 128], length not yet 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _layer(3, 24, 2),
            _layer(24, 48, 2),
            Block(48),
            _layer(48, 96, 2),
            Block(96),
            Block(96),
            _layer(96, _FEATURES, 2),
            Block(_FEATURES),
        )
        # A weight for each place, as in MobileFaceNet: the corners of a face tell less than its middle.
        self.pool = nn.Sequential(
            nn.Conv2d(_FEATURES, _FEATURES, 7, groups=_FEATURES, bias=False), nn.BatchNorm2d(_FEATURES)
        )
        self.last = nn.Linear(_FEATURES, SIZE)
        self.norm = nn.BatchNorm1d(SIZE)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, 112, 112] → [n, 160]."""
        return self.pool(self.body(x)).flatten(1)

    def embedding(self, features: torch.Tensor) -> torch.Tensor:
        """[n, 160] → [n, 128]."""
        return self.norm(self.last(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.embedding(self.features(x))


def _layer(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.PReLU(outside)
    )


class Margin(nn.Module):
    """CosFace: the cosine to one's own identity must beat all others by a margin."""

    def __init__(self, identities: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(identities, SIZE) * 0.05)

    def forward(self, vectors: torch.Tensor, who: torch.Tensor, margin: float) -> torch.Tensor:
        """Loss of vectors [n, 128] of the identities who [n]."""
        cosine = normalize(vectors) @ normalize(self.centres).T
        wanted = nn.functional.one_hot(who, len(self.centres)) * margin
        return cross_entropy(_SCALE * (cosine - wanted), who)


def traits_of(identity: Identity) -> np.ndarray:
    """float32 [46]: the traits of a face and its hair, each about -1 to 1."""
    shape = [
        (getattr(identity.face, name) - (low + high) / 2) / ((high - low) / 2)
        for name, (low, high) in FACE_RANGES.items()
    ]
    tones = np.array([*identity.skin, *identity.hair_colour, *identity.eye_colour]) / 127.5 - 1
    kinds = [
        1.0 if kind == shown else 0.0
        for shown, known in (
            (identity.hair, HAIR_FORMS),
            (identity.beard, BEARDS),
            (identity.glasses, GLASSES),
        )
        for kind in dict.fromkeys(known)
    ]
    return np.array([*shape, *tones, *kinds, identity.parting], np.float32)


def batch_of(
    collection: list[FaceCrop], numbers: dict[str, int], step: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(faces float32 [n, 3, 112, 112], identity [n]) of a step: jittered, shrunk, half mirrored."""
    random = np.random.default_rng((seed, step))
    aligned, who = [], []
    for place in random.integers(len(collection), size=_BATCH):
        face = collection[place]
        pixels, points = face.pixels(), face.points.astype(np.float64)
        eyes = float(np.hypot(*(points[1] - points[0])))
        least = max(_SHRINK, _SMALLEST_PX / max(eyes, 1e-3))
        if least < 1 and random.random() < 0.5:
            scale = float(random.uniform(least, 1))
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            points = points * scale
        apart = max(float(np.hypot(*(points[1] - points[0]))), 3.0)
        points = points + apart * (random.normal(0, _SHIFT, 2) + random.normal(0, _JITTER, points.shape))
        shown = align_face(pixels, with_mouth(points))
        aligned.append(shown[:, ::-1] if random.random() < 0.5 else shown)
        who.append(numbers[face.identity])
    stacked = np.ascontiguousarray(np.stack(aligned).transpose(0, 3, 1, 2))
    return (torch.from_numpy(stacked).float() - 127.5) / 127.5, torch.tensor(who)


def _traits(keys: list[str], faces_of_people: int) -> torch.Tensor:
    """float32 [identities, traits], in the order of the keys."""
    people = people_of_faces(FACE_SEED, faces_of_people)
    for seed in range(TRAINING_SEED, TRAINING_SEED + _WORLDS):
        people += make_world(seed, PHOTOS_A_WORLD).identities
    known = {who.key: traits_of(who) for who in people}
    return torch.from_numpy(np.stack([known[key] for key in keys]))


def export(model: Embedder, file: Path) -> None:
    """An ONNX file with a free batch size; weights in half precision, batch norms folded in."""
    graph = OnnxGraph()
    model = model.cpu().float().eval()
    x = "faces"
    for number, part in enumerate(model.body):
        name = f"body{number}"
        if isinstance(part, Block):
            inner = _write_layer(graph, x, part.first, f"{name}.first")
            x = graph.node("Add", [x, _write_layer(graph, inner, part.second, f"{name}.second")], name)
        else:
            assert isinstance(part, nn.Sequential)
            x = _write_layer(graph, x, part, name)
    pool = fuse_conv_bn_eval(model.pool[0], model.pool[1])
    x = graph.node("Flatten", [_write_conv(graph, x, pool, "pool")], "pooled", axis=1)
    last = fuse_linear_bn_eval(model.last, model.norm)
    weight = graph.weight("last.weight", last.weight.detach().numpy())
    bias = graph.weight("last.bias", last.bias.detach().numpy())
    graph.node("Gemm", [x, weight, bias], "embedding", transB=1)
    graph.write(file, ("faces", (3, ALIGNED_PX, ALIGNED_PX)), ("embedding", (SIZE,)))


def _write_layer(graph: OnnxGraph, x: str, layer: nn.Sequential, name: str) -> str:
    conv, norm, slope = layer
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(slope, nn.PReLU)
    x = _write_conv(graph, x, fuse_conv_bn_eval(conv, norm), name)
    factor = graph.weight(f"{name}.slope", slope.weight.detach().numpy()[:, None, None])
    return graph.node("PRelu", [x, factor], f"{name}.out")


def _write_conv(graph: OnnxGraph, x: str, conv: nn.Conv2d, name: str) -> str:
    assert conv.bias is not None
    weight = graph.weight(f"{name}.weight", conv.weight.detach().numpy())
    bias = graph.weight(f"{name}.bias", conv.bias.detach().numpy())
    return graph.node(
        "Conv",
        [x, weight, bias],
        f"{name}.conv",
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=[int(side) for side in conv.padding] * 2,
        group=conv.groups,
    )


def main(chosen: Options) -> None:
    """Trains, exports face.onnx and measures it on unseen worlds; needs yolo_pose.pt to measure."""
    collection = faces(chosen.cache, FACE_SEED, chosen.amount, chosen.workers)
    collection += faces_of(photos(chosen.cache, TRAINING_SEED, _WORLDS, chosen.workers))
    keys = sorted({face.identity for face in collection})
    numbers = {key: number for number, key in enumerate(keys)}
    traits = _traits(keys, chosen.amount).to(chosen.device)
    torch.manual_seed(chosen.seed)
    model = nn.ModuleDict(
        {
            "embedder": Embedder(),
            "margin": Margin(len(numbers)),
            "traits": nn.Linear(_FEATURES, traits.shape[1]),
        }
    ).to(chosen.device)
    model["embedder"].to(memory_format=torch.channels_last)
    by_adam = ("embedder.body.0.", "embedder.last.", "margin.", "traits.")
    optimizer = muon(model, _RATE, _MATRIX_RATE, by_adam, decay=0.02)

    def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
        shown, who = batch_of(collection, numbers, step, chosen.seed)
        shown, who = shown.to(chosen.device, memory_format=torch.channels_last), who.to(chosen.device)
        embedder = model["embedder"]
        assert isinstance(embedder, Embedder)
        with autocast(chosen):
            features = embedder.features(shown)
            vectors, told = embedder.embedding(features), model["traits"](features)
        # Without the margin at first: random vectors cannot keep one.
        margin = model["margin"](vectors.float(), who, _MARGIN * min(share / 0.3, 1.0))
        error = mse_loss(told.float(), traits[who])
        return margin + _TRAITS * error, {"traits": float(error.detach())}

    averaged, steps = train(chosen.out, chosen.minutes, model, optimizer, loss_of)
    file = chosen.weights / "face.onnx"
    assert isinstance(averaged, nn.ModuleDict)
    export(averaged["embedder"], file)
    yolo = chosen.weights / "yolo_pose.pt"
    found = measure_embedder(file, yolo, DETECTOR_PX, unseen_photos(chosen.cache, chosen.workers))
    write_card(
        file,
        title="face embedder",
        made_of=f"a convolutional network with shortcuts, 112 px in, {SIZE} numbers out, CosFace loss "
        f"(scale {_SCALE:g}, margin {_MARGIN:g}) and the squared error of the traits told from its features",
        licence="ours",
        chosen=chosen,
        data=f"{len(collection)} faces of {len(keys)} people, {chosen.amount} of them of the seeds "
        f"from {FACE_SEED} on",
        steps=steps,
        batch=_BATCH,
        figures=found,
    )


if __name__ == "__main__":
    main(options(__doc__, amount=960, amount_means="people beside those of the worlds", minutes=15))
