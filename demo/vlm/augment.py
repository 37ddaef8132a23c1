"""Mirrored and differently lit pictures: what is said of them stays true, so few pictures teach as many."""

import dataclasses

import numpy as np
import torch

from demo.vlm.architecture import TOKEN_PX
from demo.vlm.pool import JUDGE_CANVAS, SCENE_CANVAS
from demo.vlm.tower import Facts

_GAIN = 0.06  # standard deviation, of brightness
_CAST = 0.02  # and of each colour beside it
_GREY, _NEAR_GREY = 128, 3  # padding stays as it is
_ATR_MIRRORED = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 9, 11, 13, 12, 15, 14, 16, 17])
_JOINTS_MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def mirror_pixels(pixels: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 3] and bool [B] -> the pictures, some of them left-right exchanged."""
    return np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)


def mirror_facts(facts: Facts, mirrored: np.ndarray, task: str) -> Facts:
    """The truth of the pictures of `mirror_pixels`: labels, slots and joints change sides."""
    turned = torch.from_numpy(mirrored).to(facts.labels.device)
    columns = (JUDGE_CANVAS if task == "judge" else SCENE_CANVAS)[0] // TOKEN_PX

    def across(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.view(len(tokens), -1, columns).flip(2).flatten(1)

    labels = _ATR_MIRRORED.to(facts.labels.device)[across(facts.labels)]
    joints = facts.joints[:, _JOINTS_MIRRORED] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    return dataclasses.replace(
        facts,
        labels=torch.where(turned[:, None], labels, facts.labels),
        slots=torch.where(turned[:, None], across(facts.slots), facts.slots),
        joints=torch.where(turned[:, None, None], joints, facts.joints),
    )


def relight(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """uint8 [B, H, W, 3] -> each picture a little brighter, darker, warmer or colder."""
    gains = (
        1 + random.normal(0, _GAIN, (len(pixels), 1, 1, 1)) + random.normal(0, _CAST, (len(pixels), 1, 1, 3))
    )
    padding = (np.abs(pixels.astype(np.int16) - _GREY) <= _NEAR_GREY).all(-1, keepdims=True)
    lit = np.clip(pixels * gains.astype(np.float32) + 0.5, 0, 255).astype(np.uint8)
    return np.where(padding, pixels, lit)
