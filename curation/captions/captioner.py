"""What writes a sentence for a photo of a person, and one that needs no weights.

That one tells framing, visible regions and, from keypoints, the pose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from curation.models import Models
from curation.settings.groups import PlainCaptionerSettings

_MIN_JOINT_SCORE = 0.5
# COCO's order of joints.
_SHOULDERS, _WRISTS, _HIPS, _KNEES, _ANKLES = (5, 6), (9, 10), (11, 12), (13, 14), (15, 16)
_PARTS = {"head": "head", "torso": "upper body", "legs": "legs", "shoes": "feet"}


class Captioner(Protocol):
    """Writes one sentence for a photo of a person."""

    columns: tuple[str, ...]
    """The columns of a person that it reads."""
    asks_model: bool
    """Whether each sentence counts as a call of a model."""

    def caption(self, people: Sequence[dict[str, Any]]) -> list[str]:
        """One sentence a person."""
        ...


@dataclass(frozen=True)
class Caption:
    """A sentence, or why there is none."""

    text: str | None
    error: str | None = None


@runtime_checkable
class CaptionsSideBySide(Protocol):
    """A captioner that takes many people at once and has an error for each of them by itself."""

    columns: tuple[str, ...]
    asks_model: bool

    def caption_each(self, people: Sequence[dict[str, Any]]) -> list[Caption]:
        """One caption a person; raises for none of them."""
        ...


class PlainCaptioner:
    """A Captioner: one sentence, the same for the same measurements."""

    columns = ("regions", "keypoints", "box", "width", "height")
    asks_model = False

    def __init__(self, settings: PlainCaptionerSettings, models: Models) -> None:
        """Needs neither settings nor weights."""

    def caption(self, people: Sequence[dict[str, Any]]) -> list[str]:
        """One sentence a person."""
        return [self._sentence(person) for person in people]

    def _sentence(self, person: dict[str, Any]) -> str:
        regions = set(person["regions"] or ())
        pose = pose_of(person["keypoints"])
        parts = [word for region, word in _PARTS.items() if region in regions]
        seen = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
        words = ["A person", *([pose] if pose else []), framing_of(regions)]
        sentence = " ".join(words)
        return f"{sentence}, with {seen} in view." if seen else f"{sentence}."


def framing_of(regions: set[str]) -> str:
    """How much of a person the visible regions show."""
    if "shoes" in regions:
        return "in full length"
    if "legs" in regions:
        return "framed from the knees up"
    if "torso" in regions:
        return "framed from the waist up"
    return "in close-up"


def pose_of(keypoints: Sequence[float] | None) -> str | None:
    """sitting, standing, or with arms raised, from 17 joints (x, y, score); None where unclear."""
    if keypoints is None:
        return None
    joints = np.array(keypoints, dtype=np.float64).reshape(17, 3)
    seen = joints[:, 2] >= _MIN_JOINT_SCORE
    y = joints[:, 1]

    def level(pair: tuple[int, int]) -> float | None:
        both = [y[j] for j in pair if seen[j]]
        return float(np.mean(both)) if both else None

    shoulders, hips, knees, ankles = (level(p) for p in (_SHOULDERS, _HIPS, _KNEES, _ANKLES))
    wrists = [y[j] for j in _WRISTS if seen[j]]
    if shoulders is None or hips is None or hips <= shoulders:
        return None
    trunk = hips - shoulders
    arms = " with arms raised" if wrists and max(wrists) < shoulders else ""
    if knees is not None:
        thigh = knees - hips
        if thigh < 0.45 * trunk:
            return "sitting" + arms
        if ankles is not None and ankles > knees:
            return "standing" + arms
    return arms.strip() or None
