"""What the vision tower is taught before there is any language: dense facts of single pictures.

The heads here are thrown away after training. A tower that states garments, colours and poses from its
tokens gives the language model something to compare; from yes and no alone neither of them learns.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as nnf

from demo.vlm.architecture import TEXT_DIM, TOKEN_PX
from demo.vlm.pool import COLOUR_NAMES, FACT_NAMES, JUDGE_CANVAS, KIND_NAMES, SCENE_CANVAS, SLOTS, Truth
from demo.world import FACTS
from demo.world.outfits import PATTERNS

LABELS = 18
JOINTS = 17
NAMES = (len(KIND_NAMES), len(COLOUR_NAMES), len(PATTERNS))
PER_GARMENT = sum(NAMES) + 6
FACT_SIZES = tuple(len(FACTS[name]) for name in FACT_NAMES)
EMBEDDING = 128
_TEMPERATURE = 0.1

# The slot that an ATR label shows; -1: none, or (upper-clothes below a jacket) not certain.
_SLOT_OF_LABEL = np.full(LABELS, -1)
for _label, _slot in {
    1: "hat",
    4: "upper",
    5: "lower",
    6: "lower",
    7: "dress",
    9: "shoes",
    10: "shoes",
}.items():
    _SLOT_OF_LABEL[_label] = SLOTS.index(_slot)
_SLOT_OF_LABEL[16], _SLOT_OF_LABEL[17] = SLOTS.index("bag"), SLOTS.index("scarf")
_UPPER, _OUTER = SLOTS.index("upper"), SLOTS.index("outer")


@dataclass(frozen=True)
class Facts:
    """Truth of a batch as tensors; the fields are those of `pool.Truth`."""

    outfit: torch.Tensor
    garments: torch.Tensor
    shades: torch.Tensor
    labels: torch.Tensor
    slots: torch.Tensor  # int64 [B, T]: the slot that a token shows, or -1
    joints: torch.Tensor
    facts: torch.Tensor


def facts_of(truth: Truth, numbers: np.ndarray, task: str, device: torch.device) -> Facts:
    """The truth of some pictures; task "judge" or "scene" says which tokens."""
    judging = task == "judge"
    labels = (truth.judge_labels if judging else truth.scene_labels)[numbers].astype(np.int64)
    slots = _SLOT_OF_LABEL[labels]
    jacket = truth.garments[numbers, _OUTER, 0] >= 0
    slots = np.where((slots == _UPPER) & jacket[:, None], -1, slots)
    worn = np.take_along_axis(truth.garments[numbers, :, 0], slots.clip(0), 1) >= 0
    slots = np.where(worn, slots, -1)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return Facts(
        outfit=tensor(truth.outfit[numbers]),
        garments=tensor(truth.garments[numbers].astype(np.int64)),
        shades=tensor(truth.shades[numbers]),
        labels=tensor(labels),
        slots=tensor(slots),
        joints=tensor((truth.judge_joints if judging else truth.scene_joints)[numbers]),
        facts=tensor(truth.facts[numbers].astype(np.int64)),
    )


def chosen(facts: Facts, places: torch.Tensor) -> Facts:
    """The truth of the pictures at some places of a batch, int64 [N]."""
    return Facts(**{name: value[places] for name, value in vars(facts).items()})


def equal_slots(one: Facts, two: Facts) -> torch.Tensor:
    """bool [B, slots]: whether two people each wear the very same, or nothing, in a slot."""
    dyes = (one.shades - two.shades).abs().amax(-1) < 1e-4
    return (one.garments == two.garments).all(-1) & dyes


class TowerHeads(nn.Module):
    """Linear readings of merged tokens [B, T, 256], one by one and of their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(TEXT_DIM)
        self.label = nn.Linear(TEXT_DIM, LABELS)
        self.token_garment = nn.Linear(TEXT_DIM, PER_GARMENT)
        self.mean_norm = nn.LayerNorm(TEXT_DIM)
        self.outfit = OutfitReading(TEXT_DIM)
        self.facts = nn.Linear(TEXT_DIM, sum(FACT_SIZES))
        self.joint_token = nn.Linear(TEXT_DIM, JOINTS)
        self.joints = nn.Linear(TEXT_DIM, 2 * JOINTS)
        self.embedding = nn.Linear(TEXT_DIM, EMBEDDING)

    def losses(self, tokens: torch.Tensor, truth: Facts, task: str) -> dict[str, torch.Tensor]:
        """The terms to be minimised, and `..._right` shares (0 to 1) to be watched."""
        each = self.token_norm(tokens)
        mean = self.mean_norm(tokens.mean(1))
        terms = {"label": nnf.cross_entropy(self.label(each).float().flatten(0, 1), truth.labels.flatten())}
        shown = truth.slots >= 0
        index = truth.slots.clamp(min=0)[:, :, None]
        garments = torch.gather(truth.garments, 1, index.expand(-1, -1, 3))[shown]
        shades = torch.gather(truth.shades, 1, index.expand(-1, -1, 6))[shown]
        terms |= garment_losses("token", self.token_garment(each)[shown].float(), garments, shades)
        terms |= self.outfit.losses("picture", mean, truth)
        terms |= joint_losses(self.joint_token(each), self.joints(mean), truth.joints, task)
        facts = self.facts(mean).float().split(FACT_SIZES, -1)
        for number, name in enumerate(FACT_NAMES):
            if task == "judge" and name == "scene":
                continue
            terms[name] = nnf.cross_entropy(facts[number], truth.facts[:, number])
            terms[f"{name}_right"] = _share(facts[number].argmax(-1) == truth.facts[:, number])
        if task == "judge":
            terms["alike"] = alike_loss(self.embed(tokens), truth.outfit)
        return terms

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [B, 128] of length 1: near for one outfit, far for two."""
        return nnf.normalize(self.embedding(self.mean_norm(tokens.mean(1))).float(), dim=-1)


class OutfitReading(nn.Module):
    """What is worn in each slot, read from one vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.worn = nn.Linear(dim, len(SLOTS))
        self.garment = nn.Linear(dim, len(SLOTS) * PER_GARMENT)

    def losses(self, prefix: str, vector: torch.Tensor, truth: Facts) -> dict[str, torch.Tensor]:
        """vector [B, dim] against the garments of a batch."""
        worn = truth.garments[..., 0] >= 0
        terms = {
            f"{prefix}_worn": 2
            * nnf.binary_cross_entropy_with_logits(self.worn(vector).float(), worn.float())
        }
        logits = self.garment(vector).view(len(vector), len(SLOTS), PER_GARMENT)[worn].float()
        return terms | garment_losses(prefix, logits, truth.garments[worn], truth.shades[worn])


def garment_losses(
    prefix: str, logits: torch.Tensor, garments: torch.Tensor, shades: torch.Tensor
) -> dict[str, torch.Tensor]:
    """logits [N, PER_GARMENT], garments int64 [N, 3], shades float32 [N, 6] -> terms by name."""
    kind, colour, pattern, dyes = logits.split([*NAMES, 6], -1)
    if not len(logits):
        return {}
    first, second = (dyes - shades).square().view(-1, 2, 3).sum(-1).unbind(1)
    patterned = (garments[:, 2] > 0).float()  # a plain garment does not show its second dye
    return {
        f"{prefix}_kind": 0.5 * nnf.cross_entropy(kind, garments[:, 0]),
        f"{prefix}_colour": nnf.cross_entropy(colour, garments[:, 1]),
        f"{prefix}_pattern": nnf.cross_entropy(pattern, garments[:, 2]),
        f"{prefix}_dyes": (first + second * patterned).mean(),
        f"{prefix}_colour_right": _share(colour.argmax(-1) == garments[:, 1]),
        f"{prefix}_pattern_right": _share(pattern.argmax(-1) == garments[:, 2]),
    }


def joint_losses(
    tokens: torch.Tensor, places: torch.Tensor, joints: torch.Tensor, task: str
) -> dict[str, torch.Tensor]:
    """Where the joints are: scores [B, T, 17] of the token that holds each, and places [B, 34] on the canvas.

    joints float32 [B, 17, 2] as shares of the canvas; those that are NaN or off the canvas do not count.
    """
    known = ((joints >= 0) & (joints < 1)).all(-1)
    if not known.any():
        return {}
    columns, rows = (side // TOKEN_PX for side in (JUDGE_CANVAS if task == "judge" else SCENE_CANVAS))
    holding = (joints[..., 1] * rows).floor() * columns + (joints[..., 0] * columns).floor()
    scores = tokens.float().transpose(1, 2)[known]
    away = (places.float().view(-1, JOINTS, 2) - 4 * (joints - 0.5))[known]
    return {
        "joint_token": 0.5 * nnf.cross_entropy(scores, holding[known].long()),
        "joints": 2 * away.abs().mean(),
    }


def alike_loss(embedded: torch.Tensor, outfit: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362) of unit vectors [B, dim]."""
    itself = torch.eye(len(embedded), dtype=torch.bool, device=embedded.device)
    alike = (outfit[:, None] == outfit[None]) & ~itself
    logs = (embedded @ embedded.T / _TEMPERATURE).masked_fill(itself, -1e4).log_softmax(-1)
    many = alike.sum(-1)
    return -((logs * alike).sum(-1) / many.clamp(min=1))[many > 0].mean()


def _share(right: torch.Tensor) -> torch.Tensor:
    return right.float().mean().detach()
