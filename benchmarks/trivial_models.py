"""Models that cost next to nothing, so that what is left is the engine; and photos that fit them.

A photo is 32 × 32 px, grey: 16 blocks at its top are the person's code, the rest is noise of its own.
"""

import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.people.face import ARCFACE_TEMPLATE
from curation.people.protocols import Detections, Face, PersonView

SIDE = 32
_BLOCK = 4
_TEMPLATE = ARCFACE_TEMPLATE * (SIDE / 112)


def write_collection(folder: Path, photos: int, photos_per_person: int, per_tar: int = 10_000) -> None:
    """`photos` photos in tars, each person's one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, photos, per_tar):
        with tarfile.open(folder / f"{start // per_tar:05d}.tar", "w") as tar:
            for number in range(start, min(start + per_tar, photos)):
                data = _photo(number, number // photos_per_person)
                member = tarfile.TarInfo(f"{number:09d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _photo(number: int, person: int) -> bytes:
    code = np.random.default_rng([1, person]).integers(0, 256, (2, 8)).astype(np.uint8)
    noise = np.random.default_rng([2, number]).integers(0, 256, (6, 8)).astype(np.uint8)
    small = np.concatenate([code, noise])
    picture = np.repeat(np.repeat(small, _BLOCK, axis=0), _BLOCK, axis=1)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


class Anyone:
    """Detector, segmenter and parser: one person who fills the photo."""

    def __init__(self, settings: Any, models: Any) -> None:
        """Needs nothing."""

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """The whole photo as a box."""
        box = np.array([[0, 0, SIDE, SIDE]], np.float32)
        return [Detections(box, np.ones(1, np.float32)) for _ in photos]

    def segment(self, photo: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """All of each box."""
        return [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes.tolist()]

    def parse(self, photo: np.ndarray, people: list[PersonView]) -> list[np.ndarray]:
        """Nothing but upper clothes."""
        return [np.full(person.mask.shape, 4, np.uint8) for person in people]

    def find(self, photo: np.ndarray, people: Detections) -> list[Face]:
        """The whole photo as a face."""
        return [Face(np.array([0, 0, SIDE, SIDE / 2], np.float32), _TEMPLATE, 1.0)]

    def embed(self, faces: np.ndarray) -> np.ndarray:
        """The person's code."""
        top = faces[:, :28, :, 0].reshape(len(faces), 2, 14, 8, 14)[:, :, 3:11, :, 3:11]
        vectors = top.mean(axis=(2, 4)).reshape(len(faces), 16).astype(np.float32) - 128
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))


class AlwaysSame:
    """A judge that says yes."""

    columns = ("person_id",)
    asks_model = False

    def __init__(self, settings: Any, models: Any) -> None:
        """Needs nothing."""

    def ask(self, pairs: Any) -> list[Any]:
        """Yes to every pair."""
        from curation.outfits.judge import Answer

        return [Answer(True, 1.0, 0.5) for _ in pairs]
