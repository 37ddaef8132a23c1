"""A pool of person pictures with their truth, drawn from worlds: what the VLM is trained and measured on.

A pool is a folder of one world:
  judge.npy      uint8 [N, 224, 112, 3]   pictures as the judge sees them: the person on grey
  labels.npy     uint8 [N, 224, 112]      ATR label of each pixel of judge.npy
  scene.npy      uint8 [N, 224, 224, 3]   pictures as the captioner sees them: with surroundings
  truth.npz      the arrays of `Truth`
It is written under a temporary name and renamed: a folder that exists is whole.
"""

import argparse
import math
import os
import shutil
from dataclasses import dataclass, fields
from multiprocessing import Pool as Processes
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.vlm.pictures import jpeg, person_picture
from demo.vlm.architecture import TOKEN_PX
from demo.world import FACTS, Garment, PersonTruth, PhotoPlan, make_world, render
from demo.world.outfits import COLOURS, KINDS, PATTERNS

JUDGE_CANVAS = (112, 224)
SCENE_CANVAS = (224, 224)
SCENE_MARGIN = 0.1

SLOTS = tuple(KINDS)
MAIN_SLOTS = ("upper", "lower", "dress", "outer")
KIND_NAMES = tuple(kind for kinds in KINDS.values() for kind in kinds)
COLOUR_NAMES = tuple(COLOURS)
FACT_NAMES = tuple(FACTS)

_LEAST_SHARE = 0.3  # of a figure that must be seen
_LEAST_BOX_PX = 60
_FULL_SHARE = 0.8


@dataclass
class Truth:
    """What is known of each of N pictures.

    person      int64: who, unique within the pool            outfit  int64: what they wear, likewise
    garments    int16 [N, slots, 3]: kind, colour, pattern of each of SLOTS; -1 where nothing is worn
    shades      float32 [N, slots, 6]: CIE Lab / 50 of a garment's two dyes, 0 where nothing is worn
    seen        float32 [N, 18]: share of the person's pixels that has each ATR label
    judge_labels uint8 [N, 32], scene_labels uint8 [N, 64]: ATR label of each language token of the picture
    judge_joints, scene_joints float32 [N, 17, 2]: x and y of COCO's joints as shares of the canvas, NaN
                where a joint is outside the photo or turned away
    facts       int16 [N, facts]: index of each value in the order of FACTS
    full        bool: the whole figure is framed and little of it is hidden
    """

    person: np.ndarray
    outfit: np.ndarray
    garments: np.ndarray
    shades: np.ndarray
    seen: np.ndarray
    judge_labels: np.ndarray
    scene_labels: np.ndarray
    judge_joints: np.ndarray
    scene_joints: np.ndarray
    facts: np.ndarray
    full: np.ndarray


def draw_pool(seed: int, photos: int, out: Path, processes: int) -> int:
    """Draw the people of one world's ordinary photos into the folder `out`; returns how many pictures.

    A folder that is there already is left as it is.
    """
    if out.exists():
        return len(np.load(out / "truth.npz")["person"])
    world = make_world(seed, photos)
    plans = [plan for plan in world.photos if plan.kind == "photo" and plan.copy_of is None]
    if processes > 1:
        with Processes(processes) as pool:
            drawn = pool.map(_draw, plans, chunksize=8)
    else:
        drawn = [_draw(plan) for plan in plans]
    rows = [row for people in drawn for row in people]
    persons = {key: number for number, key in enumerate(sorted({row["person"] for row in rows}))}
    outfits = {key: number for number, key in enumerate(sorted({row["outfit"] for row in rows}))}
    for row in rows:
        row["person"], row["outfit"] = persons[row["person"]], outfits[row["outfit"]]
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    np.save(part / "judge.npy", np.stack([row["judge"] for row in rows]))
    np.save(part / "labels.npy", np.stack([row["labels"] for row in rows]))
    np.save(part / "scene.npy", np.stack([row["scene"] for row in rows]))
    truth: dict[str, Any] = {
        field.name: np.stack([row[field.name] for row in rows]) for field in fields(Truth)
    }
    np.savez(part / "truth.npz", **truth)
    os.replace(part, out)
    return len(rows)


def load_truth(folder: Path) -> Truth:
    """The truth of a pool."""
    with np.load(folder / "truth.npz") as arrays:
        return Truth(**{field.name: arrays[field.name] for field in fields(Truth)})


@dataclass(frozen=True)
class Drawn:
    """One person on a canvas: the picture uint8 [h, w, 3], label of each pixel [h, w] and of each token,
    and joints [17, 2]."""

    picture: np.ndarray
    labels: np.ndarray
    token_labels: np.ndarray
    joints: np.ndarray


def picture_of(photo: np.ndarray, person: PersonTruth, task: str, random: np.random.Generator) -> Drawn:
    """A person as a finder and a segmenter that err a little would show them; task "judge" or "scene".

    The picture has been through JPEG, as one that is sent to a server.
    """
    height, width = photo.shape[:2]
    sides = np.array([person.box[2] - person.box[0], person.box[3] - person.box[1]] * 2)
    box = np.clip(person.box + random.normal(0, 0.008, 4) * sides, 0, [width, height, width, height])
    left, top = math.floor(person.box[0]), math.floor(person.box[1])
    labels = np.zeros((height, width), np.uint8)
    labels[top : top + person.labels.shape[0], left : left + person.labels.shape[1]] = person.labels
    if task == "scene":
        canvas, margin = SCENE_CANVAS, SCENE_MARGIN
        picture = person_picture(photo, box, None, canvas, "keep", margin)
    else:
        canvas, margin = JUDGE_CANVAS, 0.0
        x0, y0, x1, y1 = _cells(box, width, height)
        mask = _erring(labels[y0:y1, x0:x1] > 0, random)
        picture = person_picture(photo, box, mask, canvas, "grey", margin)
    sent = cv2.imdecode(np.frombuffer(jpeg(picture), np.uint8), cv2.IMREAD_COLOR_RGB)
    placed, joints = _placed(labels, person.keypoints, box, canvas, margin)
    return Drawn(np.asarray(sent), placed, _token_labels(placed), joints)


def _draw(plan: PhotoPlan) -> list[dict[str, Any]]:
    cv2.setNumThreads(1)
    rendered = render(plan)
    done, data = cv2.imencode(
        ".jpg", rendered.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, plan.jpeg_quality]
    )
    assert done
    photo = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    random = np.random.default_rng([plan.seed, 11])
    rows: list[dict[str, Any]] = []
    for person in rendered.people:
        if person.visible_share < _LEAST_SHARE or person.box[3] - person.box[1] < _LEAST_BOX_PX:
            continue
        judge = picture_of(photo, person, "judge", random)
        scene = picture_of(photo, person, "scene", random)
        garments, shades = _garments(person.garments)
        counts = np.bincount(person.labels.ravel(), minlength=18)[:18].astype(np.float32)
        counts[0] = 0
        rows.append(
            {
                "judge": judge.picture,
                "labels": judge.labels,
                "scene": scene.picture,
                "person": person.identity,
                "outfit": person.outfit,
                "garments": garments,
                "shades": shades,
                "seen": counts / max(counts.sum(), 1),
                "judge_labels": judge.token_labels,
                "scene_labels": scene.token_labels,
                "judge_joints": judge.joints,
                "scene_joints": scene.joints,
                "facts": np.array(
                    [list(FACTS[name]).index(person.facts[name]) for name in FACT_NAMES], np.int16
                ),
                "full": person.facts["framing"] == "full" and person.visible_share >= _FULL_SHARE,
            }
        )
    return rows


def _garments(worn: dict[str, Garment]) -> tuple[np.ndarray, np.ndarray]:
    names = np.full((len(SLOTS), 3), -1, np.int16)
    shades = np.zeros((len(SLOTS), 6), np.float32)
    for number, slot in enumerate(SLOTS):
        garment = worn.get(slot)
        if garment is not None:
            names[number] = (
                KIND_NAMES.index(garment.kind),
                COLOUR_NAMES.index(garment.colour),
                PATTERNS.index(garment.pattern),
            )
            dyes = np.array([[garment.shade, garment.second]], np.float32) / 255
            shades[number] = cv2.cvtColor(dyes, cv2.COLOR_RGB2LAB).ravel() / 50
    return names, shades


def _erring(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The mask as a segmenter would give it: its border a little off, here and there."""
    px = random.normal(0, 0.004 * max(mask.shape))
    wobble = cv2.resize(
        random.normal(0, 1, (8, 4)).astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    solid = mask.astype(np.uint8)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    erred = distance + px + 0.004 * max(mask.shape) * wobble > 0
    return erred if erred.any() else mask


def _cells(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    left, top = min(max(math.floor(box[0]), 0), width - 1), min(max(math.floor(box[1]), 0), height - 1)
    return (
        left,
        top,
        max(min(math.ceil(box[2]), width), left + 1),
        max(min(math.ceil(box[3]), height), top + 1),
    )


def _placed(
    labels: np.ndarray, keypoints: np.ndarray, box: np.ndarray, canvas: tuple[int, int], margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [H, W] and keypoints [17, 3] of a whole photo, moved as `person_picture` moves its pixels."""
    grow = margin * np.array([box[2] - box[0], box[3] - box[1]])
    grown = box + np.array([-grow[0], -grow[1], grow[0], grow[1]])
    x0, y0, x1, y1 = _cells(grown, labels.shape[1], labels.shape[0])
    scale = min(canvas[0] / (x1 - x0), canvas[1] / (y1 - y0))
    wide = min(max(1, round((x1 - x0) * scale)), canvas[0])
    high = min(max(1, round((y1 - y0) * scale)), canvas[1])
    placed = np.zeros((canvas[1], canvas[0]), np.uint8)
    left, top = (canvas[0] - wide) // 2, (canvas[1] - high) // 2
    placed[top : top + high, left : left + wide] = cv2.resize(
        labels[y0:y1, x0:x1], (wide, high), interpolation=cv2.INTER_NEAREST
    )
    joints = (keypoints[:, :2] - [x0, y0]) * scale + [left, top]
    joints = np.where(keypoints[:, 2:] > 0, joints / canvas, np.nan)
    return placed, joints.astype(np.float32)


def _token_labels(placed: np.ndarray) -> np.ndarray:
    """uint8 [tokens]: the most frequent label of the person under a token; 0 below a fifth of its pixels."""
    rows, columns = placed.shape[0] // TOKEN_PX, placed.shape[1] // TOKEN_PX
    cells = (
        placed.reshape(rows, TOKEN_PX, columns, TOKEN_PX).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    )
    counts = np.stack([np.bincount(cell, minlength=18)[:18] for cell in cells])
    person = counts[:, 1:]
    found = person.sum(1) >= TOKEN_PX**2 / 5
    return np.where(found, person.argmax(1) + 1, 0).astype(np.uint8)


def main() -> None:
    """Draw pools of some seeds."""
    parser = argparse.ArgumentParser(
        description="Draws person pictures of rendered worlds into pools.",
        epilog="example: python -m demo.vlm.pool --seeds 2000 2001 --photos 1000 --out /tmp/train/vlm",
    )
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one world and one pool each")
    parser.add_argument("--photos", type=int, default=1000, help="photos of each world")
    parser.add_argument("--out", type=Path, required=True, help="folder to write pool-SEED into")
    parser.add_argument("--processes", type=int, default=1)
    settings = parser.parse_args()
    for seed in settings.seeds:
        folder = settings.out / f"pool-{seed}"
        print(folder, draw_pool(seed, settings.photos, folder, settings.processes), flush=True)


if __name__ == "__main__":
    main()
