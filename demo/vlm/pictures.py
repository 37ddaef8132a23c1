"""Pools of pictures as one numbered set, also mirrored and otherwise lit; from it, groups and pairs."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from demo.vlm.architecture import TOKEN_PX
from demo.vlm.pool import JUDGE_CANVAS, MAIN_SLOTS, SCENE_CANVAS, SLOTS, Truth, load_truth
from demo.vlm.tower import Facts

# ATR labels under which a main slot shows, and the share of the person's pixels that is enough to tell.
_SHOWN_AS = {"upper": (4,), "outer": (4,), "dress": (7,), "lower": (5, 6)}
_ENOUGH = 0.05
_MAIN = [SLOTS.index(slot) for slot in MAIN_SLOTS]


class Pictures:
    """All pictures of some pools, numbered from 0; persons and outfits are numbered through, too.

    Pixels stay on disk (memory-mapped) until they are asked for.
    """

    truth: Truth

    def __init__(self, folders: list[Path]) -> None:
        if not folders:
            raise ValueError("no pools of pictures: draw some with python -m demo.vlm.pool")
        self.worlds = [folder.name for folder in folders]
        self._folders = folders
        self._arrays: dict[str, list[np.ndarray]] = {}
        truths = [load_truth(folder) for folder in folders]
        persons = outfits = 0
        for truth in truths:
            truth.person = truth.person + persons
            truth.outfit = truth.outfit + outfits
            persons, outfits = int(truth.person.max()) + 1, int(truth.outfit.max()) + 1
        names = vars(truths[0])
        self.truth = Truth(
            **{name: np.concatenate([vars(truth)[name] for truth in truths]) for name in names}
        )
        self._start = np.cumsum([0, *(len(truth.person) for truth in truths)])
        order = np.argsort(self.truth.person, kind="stable")
        self._of_person = np.split(order, np.flatnonzero(np.diff(self.truth.person[order])) + 1)
        order = np.argsort(self.truth.outfit, kind="stable")
        of_outfit = np.split(order, np.flatnonzero(np.diff(self.truth.outfit[order])) + 1)
        self._of_outfit = [own for own in of_outfit if len(own) >= 4]

    def __len__(self) -> int:
        return len(self.truth.person)

    def pixels(self, task: str, numbers: np.ndarray) -> np.ndarray:
        """uint8 [B, 224, 112 or 224, 3]: pictures of a task ("judge" or "scene")."""
        return self._stored(task, numbers)

    def labels(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 [B, 224, 112]: the ATR label of each pixel of judge pictures."""
        return self._stored("labels", numbers)

    def _stored(self, name: str, numbers: np.ndarray) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = [np.load(folder / f"{name}.npy", mmap_mode="r") for folder in self._folders]
        pool = np.searchsorted(self._start, numbers, side="right") - 1
        parts = self._arrays[name]
        return np.stack([parts[p][n - self._start[p]] for p, n in zip(pool, numbers, strict=True)])

    def group(self, random: np.random.Generator, size: int) -> np.ndarray:
        """Numbers of `size` pictures, four of each of some persons, of two outfits where they have two."""
        picked: list[int] = []
        while len(picked) < size:
            own = self._of_person[int(random.integers(len(self._of_person)))]
            worn = random.permutation(np.unique(self.truth.outfit[own]))[:2]
            for outfit in worn:
                alike = own[self.truth.outfit[own] == outfit]
                picked += random.permutation(alike)[:2].tolist()
        return np.array(picked[:size])

    def families(self, random: np.random.Generator, persons: int, hard: float) -> np.ndarray:
        """int64 [persons, 4]: two pictures of a person in one outfit, then two of the same in another.

        hard: share of persons whose two outfits must have a main garment in common. Where the first two
        pictures differ from the last two can be seen in all of them.
        """
        found: list[list[int]] = []
        while len(found) < persons:
            must_share = random.random() < hard
            for attempt in range(10_000):
                own = self._of_person[int(random.integers(len(self._of_person)))]
                worn, counts = np.unique(self.truth.outfit[own], return_counts=True)
                worn = random.permutation(worn[counts >= 2])[:2]
                if len(worn) < 2:
                    continue
                a, b, c, d = (
                    int(n)
                    for outfit in worn
                    for n in random.permutation(own[self.truth.outfit[own] == outfit])[:2]
                )
                told = self.tells(a, c) and self.tells(b, d)
                if told and (attempt > 300 or not must_share or self.shares(a, c)):
                    found.append([a, b, c, d])
                    break
        return np.array(found)

    def families_of_one_outfit(self, random: np.random.Generator, persons: int) -> np.ndarray:
        """int64 [persons, 4]: four pictures of a person in one outfit."""
        chosen = random.integers(len(self._of_outfit), size=persons)
        return np.stack([random.permutation(self._of_outfit[number])[:4] for number in chosen])

    def pairs(self, random: np.random.Generator, count: int, hard: float) -> tuple[np.ndarray, np.ndarray]:
        """`count` pairs of pictures of one person each, first and second; every other pair has one outfit.

        hard: share of the unequal pairs that must have a main garment in common. Unequal pairs are
        such that the difference can be seen in both pictures.
        """
        first, second = np.empty(count, np.int64), np.empty(count, np.int64)
        for number in range(count):
            same, must_share = number % 2 == 0, random.random() < hard
            for attempt in range(10_000):
                own = self._of_person[int(random.integers(len(self._of_person)))]
                if len(own) < 2:
                    continue
                a, b = (int(n) for n in random.choice(own, 2, replace=False))
                if same != bool(self.truth.outfit[a] == self.truth.outfit[b]):
                    continue
                if same or (self.tells(a, b) and (attempt > 300 or not must_share or self.shares(a, b))):
                    break
            first[number], second[number] = a, b
        return first, second

    def equal_slots(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """bool [B, slots]: whether the people of two pictures wear the very same, or nothing, in a slot."""
        truth = self.truth
        names = (truth.garments[first] == truth.garments[second]).all(-1)
        dyes = np.abs(truth.shades[first] - truth.shades[second]).max(-1) < 1e-4
        return np.asarray(names & dyes)

    def shares(self, a: int, b: int) -> bool:
        """Whether the two wear one main garment in common."""
        equal = self.equal_slots(np.array([a]), np.array([b]))[0]
        return bool((equal & (self.truth.garments[a, :, 0] >= 0))[_MAIN].any())

    def tells(self, a: int, b: int) -> bool:
        """Whether a main garment in which the two differ shows in both pictures."""
        equal = self.equal_slots(np.array([a]), np.array([b]))[0]
        for slot, labels in _SHOWN_AS.items():
            if equal[SLOTS.index(slot)]:
                continue
            worn = [n for n in (a, b) if self.truth.garments[n, SLOTS.index(slot), 0] >= 0]
            if all(self.truth.seen[n, list(labels)].sum() >= _ENOUGH for n in worn):
                return True
        return False


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
