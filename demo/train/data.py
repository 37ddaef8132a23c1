"""What the small models learn from: photos of rendered worlds with their truth, kept on disk.

Worlds of the seeds from TRAINING_SEED on are learned from, those from MEASURING_SEED on are measured
on; people of two seeds are never the same.
"""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.people.atr import decode_map, encode_map
from curation.people.face import ARCFACE_TEMPLATE, similarity
from demo.world import (
    Identity,
    bareheaded,
    in_a_hat,
    look_alike,
    make_identity,
    make_outfits,
    make_world,
    render,
    snapshot,
)

TRAINING_SEED = 1000
FACE_SEED = 11_000  # of people who are rendered for their faces only
MEASURING_SEED = 900_000
PHOTOS_A_WORLD = 200  # enough people for crowds
FACES_AN_IDENTITY = 8
_IDENTITIES_A_FILE = 16
_LOOK_ALIKES = 4  # of them
_FACE_VIEWS = ("front", "front", "three_quarter")
# Far more than wear one in a world: with the hair hidden a person must still be known by the face.
_HATS = 0.4
_DRAW_NOTHING = ("__init__", "__main__", "collection", "facts", "sheet")
_QUALITY = (60, 96)  # of the JPEGs, so that models know its artefacts
_FACE_MARGIN = 75  # px of the ArcFace template by which a face's crop reaches beyond eyes and nose


def _renderer() -> str:
    """A short hash of the sources that draw: a changed renderer is another cache."""
    world = Path(__file__).parents[1] / "world"
    sources = [file for file in sorted(world.glob("*.py")) if file.stem not in _DRAW_NOTHING]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]


# Taken when this process imported the renderer: a later edit is not what it renders with.
_RENDERER = _renderer()


@dataclass(frozen=True)
class Photo:
    """A photo as a file would hold it, and the truth about its n people.

    jpeg        the encoded photo
    boxes       float32 [n, 4], x0, y0, x1, y1 in px of the photo
    keypoints   float32 [n, 17, 3], COCO order: x, y, 0 outside the photo, 1 hidden, 2 seen
    labels      n PNGs: ATR labels on the integer box, 0 where it is not this person
    identities  n keys; visible: float32 [n], share of the figure that is seen
    """

    jpeg: bytes
    boxes: np.ndarray
    keypoints: np.ndarray
    labels: list[bytes]
    identities: list[str]
    visible: np.ndarray

    def pixels(self) -> np.ndarray:
        """uint8 [h, w, 3], RGB."""
        return pixels_of(self.jpeg)

    def label_map(self, person: int) -> tuple[np.ndarray, np.ndarray]:
        """(int [4] box, uint8 label map of its size)."""
        return whole_box(self.boxes[person]), decode_map(self.labels[person])


@dataclass(frozen=True)
class FaceCrop:
    """A face cut out of a photo without scaling: JPEG pixels as PNG, eyes and nose [3, 2] within."""

    png: bytes
    points: np.ndarray
    identity: str

    def pixels(self) -> np.ndarray:
        """uint8 [h, w, 3], RGB."""
        return pixels_of(self.png)


def whole_box(box: np.ndarray) -> np.ndarray:
    """The integer box around a box: that of its label map."""
    return np.concatenate([np.floor(box[:2]), np.ceil(box[2:])]).astype(int)


def pixels_of(data: bytes) -> np.ndarray:
    """uint8 [h, w, 3], RGB, of an encoded picture."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1])


def jpeg_of(pixels: np.ndarray, seed: int) -> bytes:
    """A JPEG of a quality that depends on the seed."""
    quality = int(np.random.default_rng(seed).integers(*_QUALITY))
    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return bytes(data)


def photos(cache: Path, first_seed: int, worlds: int, workers: int = 1) -> list[Photo]:
    """The photos of so many worlds, copies left out; what is not in the cache is rendered."""
    found: list[Photo] = []
    for file in _ensured(cache, "photos", range(first_seed, first_seed + worlds), _write_photos, workers):
        for row in pq.read_table(file).to_pylist():
            n = len(row["labels"])
            found.append(
                Photo(
                    row["jpeg"],
                    np.array(row["boxes"], np.float32).reshape(n, 4),
                    np.array(row["keypoints"], np.float32).reshape(n, 17, 3),
                    row["labels"],
                    row["identities"],
                    np.array(row["visible"], np.float32),
                )
            )
    return found


def faces(cache: Path, first_seed: int, identities: int, workers: int = 1) -> list[FaceCrop]:
    """Up to FACES_AN_IDENTITY faces of each of so many people, each on a photo and scene of its own.

    A share _HATS of them is in a hat.
    """
    files = range(first_seed, first_seed + -(-identities // _IDENTITIES_A_FILE))
    return [
        FaceCrop(row["png"], np.array(row["points"], np.float32).reshape(3, 2), row["identity"])
        for file in _ensured(cache, "faces", files, _write_faces, workers)
        for row in pq.read_table(file).to_pylist()
    ]


def people_of_faces(first_seed: int, identities: int) -> list[Identity]:
    """The people whose faces `faces` gives."""
    files = -(-identities // _IDENTITIES_A_FILE)
    return [who for seed in range(first_seed, first_seed + files) for who in _people_of(seed)]


def faces_of(collection: list[Photo]) -> list[FaceCrop]:
    """The faces on photos of worlds, those of crowds among them."""
    found = []
    for photo in collection:
        for person in np.flatnonzero((photo.keypoints[:, :3, 2] == 2).all(axis=1)):
            cut = _cut(photo.pixels(), photo.keypoints[person])
            points = np.array(cut["points"], np.float32).reshape(3, 2)
            found.append(FaceCrop(cut["png"], points, photo.identities[person]))
    return found


def _ensured(cache: Path, kind: str, seeds: range, write: Any, workers: int) -> list[Path]:
    """The cache's files of these seeds, in order; missing ones are written by worker processes."""
    cache = cache / _RENDERER
    cache.mkdir(parents=True, exist_ok=True)
    files = [cache / f"{kind}-{seed:06d}.parquet" for seed in seeds]
    missing = [(seed, file) for seed, file in zip(seeds, files, strict=True) if not file.exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(_write, write), *zip(*missing, strict=True)))
    return files


def _write(write: Any, seed: int, file: Path) -> None:
    cv2.setNumThreads(1)
    temporary = file.with_suffix(f".{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(write(seed)), temporary)
    os.replace(temporary, file)


def _write_photos(seed: int) -> list[dict[str, Any]]:
    rows = []
    for number, plan in enumerate(make_world(seed, PHOTOS_A_WORLD).photos):
        if plan.copy_of is not None:
            continue
        rendered = render(plan)
        people = rendered.people
        rows.append(
            {
                "jpeg": jpeg_of(rendered.image, seed * PHOTOS_A_WORLD + number),
                "boxes": [float(x) for person in people for x in person.box],
                "keypoints": [float(x) for person in people for x in person.keypoints.reshape(-1)],
                "labels": [encode_map(person.labels) for person in people],
                "identities": [person.identity for person in people],
                "visible": [float(person.visible_share) for person in people],
            }
        )
    return rows


def _write_faces(seed: int) -> list[dict[str, Any]]:
    rows = []
    for number, identity in enumerate(_people_of(seed)):
        outfits = make_outfits(identity, 3)
        random = np.random.default_rng([*identity.seed, 6])
        kept = 0
        for attempt in range(2 * FACES_AN_IDENTITY):  # some show no face
            if kept == FACES_AN_IDENTITY:
                break
            name = (seed * _IDENTITIES_A_FILE + number) * 100 + attempt
            outfit, view = outfits[attempt % len(outfits)], _FACE_VIEWS[attempt % len(_FACE_VIEWS)]
            outfit = in_a_hat(outfit, random) if random.random() < _HATS else bareheaded(outfit)
            rendered = render(snapshot(identity, outfit, name, view=view))
            pixels: np.ndarray | None = None
            for person in rendered.people:
                if person.identity == identity.key and person.face_visible:
                    pixels = pixels_of(jpeg_of(rendered.image, name)) if pixels is None else pixels
                    rows.append({"identity": identity.key, **_cut(pixels, person.keypoints)})
                    kept += 1
    return rows


def _people_of(seed: int) -> list[Identity]:
    """Those of a file of faces; the last resemble the first, so that they are hard to tell apart."""
    apart = _IDENTITIES_A_FILE - _LOOK_ALIKES
    people = [make_identity(seed, number) for number in range(apart)]
    return people + [look_alike(people[number], seed, apart + number) for number in range(_LOOK_ALIKES)]


def _cut(pixels: np.ndarray, keypoints: np.ndarray) -> dict[str, Any]:
    """The face's crop, and where eyes and nose (in the order of Face.points) lie in it."""
    points = keypoints[[2, 1, 0], :2]
    matrix = similarity(points.astype(np.float64), ARCFACE_TEMPLATE[:3])
    reach = _FACE_MARGIN / np.hypot(matrix[0, 0], matrix[1, 0])
    x0, y0 = np.maximum(np.floor(points.min(0) - reach), 0).astype(int)
    x1, y1 = np.ceil(points.max(0) + reach).astype(int) + 1
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[y0:y1, x0:x1, ::-1]))
    assert done
    return {"png": bytes(data), "points": (points - (x0, y0)).reshape(-1).tolist()}
