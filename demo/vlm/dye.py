"""Garments dyed anew: from the photos of one outfit come pairs that differ in one garment, in any colour.

Rendered people wear what their worlds gave them, and a model of some millions of weights learns those few
thousand outfits by heart. Cloth in demo.world is a dye times a shading, so a photo of the same cloth in
another dye is the photo times a ratio, channel by channel, where the garment shows.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.vlm.pictures import Pictures
from demo.vlm.pool import COLOUR_NAMES, SLOTS
from demo.world.outfits import COLOURS, LEAST_DIFFERENCE

# What is dyed as one: ATR labels, and the slots that show under them. A jacket and what it is worn over
# share a label, and so a ratio; the jacket's dye is the one that people would name.
PARTS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "top": ((4,), ("outer", "upper")),
    "lower": ((5, 6), ("lower",)),
    "dress": ((7,), ("dress",)),
}
_LABELS = 18
_ENOUGH = 0.05  # of a person's pixels, for a garment to be judged by
_DYE_SPREAD = 7.0  # RGB, standard deviation about a colour's usual dye: that of demo.world
_MOST = 3.0  # a brighter dye than this many times the old one would show the photo's noise
_DYED = 0.7  # share of the garments that may be dyed that are
_NAMED = np.array([COLOURS[name] for name in COLOUR_NAMES], np.float32)


@dataclass
class Dyed:
    """Judge pictures and the part of their truth that dyeing changes.

    pixels uint8 [B, 224, 112, 3], garments int64 [B, slots, 3], shades float32 [B, slots, 6],
    outfit int64 [B]: equal numbers, one outfit
    """

    pixels: np.ndarray
    garments: np.ndarray
    shades: np.ndarray
    outfit: np.ndarray


def dyed_families(
    random: np.random.Generator, pictures: Pictures, families: np.ndarray, alone: np.ndarray
) -> Dyed:
    """Pictures of `Pictures.families` (int64 [F, 4]), flat, in dyes of their own.

    alone   bool [F]: all four photos are of one outfit; one garment of the last two gets another dye than
            in the first two, as different as the world's outfits are. In the other families only what
            both outfits have in common is dyed, so what tells them apart stays as it was.
    """
    numbers = families.ravel()
    truth = pictures.truth
    ratios = np.ones((len(numbers), _LABELS, 3), np.float32)
    dyed = Dyed(
        pixels=np.empty(0),
        garments=truth.garments[numbers].astype(np.int64),
        shades=truth.shades[numbers].copy(),
        outfit=truth.outfit[numbers].astype(np.int64),
    )
    unused = int(truth.outfit.max()) + 1
    for family, by_itself in enumerate(alone):
        rows = slice(4 * family, 4 * family + 4)
        members = numbers[rows]
        changed = False
        for part, (_, slots) in PARTS.items():
            common = pictures.equal_slots(members[:1], members[2:3])[0][[SLOTS.index(s) for s in slots]]
            if common.all() and random.random() < _DYED:
                changed |= _dye(random, dyed, ratios, part, np.arange(4 * family, 4 * family + 4), 0.0)
        if by_itself:
            shown = [
                part
                for part, (labels, _) in PARTS.items()
                if (truth.seen[members][:, list(labels)].sum(1) >= _ENOUGH).all()
            ]
            last = np.arange(4 * family + 2, 4 * family + 4)
            for part in random.permutation(shown):
                if _dye(random, dyed, ratios, str(part), last, LEAST_DIFFERENCE):
                    dyed.outfit[last] = unused + 2 * family + 1
                    break
        if changed:
            first = dyed.outfit[rows] == dyed.outfit[4 * family]
            dyed.outfit[rows] = unused + 2 * family + ~first
    dyed.pixels = paint(pictures.pixels("judge", numbers), pictures.labels(numbers), ratios)
    return dyed


def paint(pixels: np.ndarray, labels: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 3], labels uint8 [B, H, W], ratios float32 [B, 18, 3] -> what shows each label, times
    the ratio of that label. Borders are soft, as those of a rendered garment are."""
    painted = np.empty_like(pixels)
    for row, (picture, shows, ratio) in enumerate(zip(pixels, labels, ratios, strict=True)):
        if (ratio == 1).all():
            painted[row] = picture
            continue
        gain = cv2.GaussianBlur(np.ascontiguousarray(ratio[shows]), (3, 3), 0)
        painted[row] = np.clip(picture * gain + 0.5, 0, 255).astype(np.uint8)
    return painted


def _dye(
    random: np.random.Generator, dyed: Dyed, ratios: np.ndarray, part: str, rows: np.ndarray, least: float
) -> bool:
    """Dye a part of some rows, all in what they wear of it now; False where nothing is worn, or no dye of
    a few tried is `least` (CIE Lab) from the old one and can be had by a ratio."""
    labels, slots = PARTS[part]
    worn = [SLOTS.index(slot) for slot in slots if dyed.garments[rows[0], SLOTS.index(slot), 0] >= 0]
    if not worn:
        return False
    old = _rgb(dyed.shades[rows[0], worn[0], :3])
    for _ in range(12):
        new = np.clip(_NAMED[random.integers(len(_NAMED))] + random.normal(0, _DYE_SPREAD, 3), 12, 246)
        ratio = (new / old).astype(np.float32)
        if (ratio * ratios[rows[0], labels[0]]).max() > _MOST:
            continue
        if np.linalg.norm(_lab(new) - _lab(old)) < least:
            continue
        for label in labels:
            ratios[rows, label] *= ratio
        for slot in worn:
            for half in (slice(0, 3), slice(3, 6)):
                again = np.clip(_rgb(dyed.shades[rows[0], slot, half]) * ratio, 0, 255)
                dyed.shades[rows, slot, half] = _lab(again) / 50
            away = np.linalg.norm(_lab(_NAMED) - 50 * dyed.shades[rows[0], slot, :3], axis=-1)
            dyed.garments[rows, slot, 1] = int(away.argmin())
        return True
    return False


def _lab(rgb: np.ndarray) -> np.ndarray:
    """RGB 0 to 255, [3] or [N, 3] -> CIE Lab."""
    flat = (np.atleast_2d(rgb) / 255).astype(np.float32)
    return np.asarray(cv2.cvtColor(flat[None], cv2.COLOR_RGB2LAB)[0].reshape(rgb.shape))


def _rgb(shade: np.ndarray) -> np.ndarray:
    """CIE Lab / 50, float32 [3] -> RGB, 1 to 255."""
    flat = (50 * shade).astype(np.float32).reshape(1, 1, 3)
    return np.clip(255 * cv2.cvtColor(flat, cv2.COLOR_LAB2RGB).reshape(3), 1, 255)
