"""A world on disk: the photos as a scraped collection would hold them, and the truth beside it.

    OUT/collection/folder/*.jpg        files
    OUT/collection/tars/NNNNN.tar      as img2dataset writes them: KEY.jpg, KEY.txt, KEY.json
    OUT/collection/parquet/*.parquet   columns image (bytes), key, url
    OUT/truth/                         what curation.evaluation.truth describes

Each form holds the whole collection. Equal seed and size give equal bytes.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.evaluation.truth import OUTFITS_SCHEMA, PEOPLE_SCHEMA, PHOTOS_SCHEMA, write_truth
from curation.people.atr import encode_map
from demo.world.facts import FACTS
from demo.world.plan import PhotoPlan, World
from demo.world.render import PersonTruth, Rendered, render

FORMS = ("folder", "tars", "parquet")
_PER_TAR = 100


@dataclass(frozen=True)
class Shot:
    """A photo as a file: its bytes and the truth in its own pixels."""

    plan: PhotoPlan
    data: bytes
    width: int
    height: int
    people: list[PersonTruth]

    @property
    def photo_id(self) -> str:
        """sha256 of the bytes, in hex."""
        return sha256(self.data).hexdigest()


def shoot(plan: PhotoPlan) -> Shot:
    """Renders and encodes a photo. Copies are smaller; corrupt files are cut short."""
    rendered = render(plan)
    if plan.copy_of is not None:
        random = np.random.default_rng([plan.seed, plan.jpeg_quality])
        rendered = resized(rendered, float(random.uniform(0.55, 0.95)))
    data = jpeg(rendered.image, plan.jpeg_quality)
    height, width = rendered.image.shape[:2]
    if plan.kind == "corrupt":
        return Shot(plan, data[: len(data) // 3], 0, 0, [])
    return Shot(plan, data, width, height, rendered.people)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """uint8 [h, w, 3] RGB as JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode an image of shape {image.shape}")
    return bytes(data)


def resized(rendered: Rendered, factor: float) -> Rendered:
    """The photo at `factor` of its size, with its truth."""
    height, width = (round(side * factor) for side in rendered.image.shape[:2])
    scale = np.array([width / rendered.image.shape[1], height / rendered.image.shape[0]], np.float32)
    people = []
    for person in rendered.people:
        box = person.box * np.concatenate([scale, scale])
        x0, y0 = np.floor(box[:2]).astype(int)
        x1, y1 = np.ceil(box[2:]).astype(int)
        size = (min(x1, width) - x0, min(y1, height) - y0)
        labels = cv2.resize(person.labels, (int(size[0]), int(size[1])), interpolation=cv2.INTER_NEAREST)
        keypoints = person.keypoints * np.array([*scale, 1], np.float32)
        people.append(replace(person, box=box, labels=labels, keypoints=keypoints))
    image = cv2.resize(rendered.image, (width, height), interpolation=cv2.INTER_AREA)
    return Rendered(image, people, rendered.scene)


def write_collection(world: World, out: Path, forms: Sequence[str] = FORMS, processes: int = 2) -> None:
    """Writes collection and truth under `out`. Raises OSError where it cannot be written."""
    shots = list(_shots(world.photos, processes))
    collection = out / "collection"
    writers = {"folder": _folder, "tars": _tars, "parquet": _parquet}
    for form in forms:
        target = collection / form
        target.mkdir(parents=True, exist_ok=True)
        writers[form](shots, target)
    ids = {shot.plan.key: shot.photo_id for shot in shots}
    write_truth(
        str(out / "truth"),
        pa.Table.from_pylist([_photo_row(shot, ids) for shot in shots], PHOTOS_SCHEMA),
        pa.Table.from_pylist(list(_people_rows(shots)), PEOPLE_SCHEMA),
        pa.Table.from_pylist(list(_outfit_rows(world)), OUTFITS_SCHEMA),
        FACTS,
    )


def _shots(plans: Sequence[PhotoPlan], processes: int) -> Iterator[Shot]:
    if processes < 2:
        yield from map(shoot, plans)
        return
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(shoot, plans, chunksize=8)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _name(shot: Shot) -> str:
    return shot.plan.key


def _folder(shots: Iterable[Shot], target: Path) -> None:
    for shot in shots:
        (target / f"{_name(shot)}.jpg").write_bytes(shot.data)


def _tars(shots: Sequence[Shot], target: Path) -> None:
    for number, start in enumerate(range(0, len(shots), _PER_TAR)):
        with tarfile.open(target / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for shot in shots[start : start + _PER_TAR]:
                record = {"key": _name(shot), "url": _url(shot), "width": shot.width, "height": shot.height}
                for suffix, data in (
                    ("jpg", shot.data),
                    ("txt", b""),
                    ("json", json.dumps(record, sort_keys=True).encode()),
                ):
                    info = tarfile.TarInfo(f"{_name(shot)}.{suffix}")
                    info.size, info.mode = len(data), 0o644
                    tar.addfile(info, io.BytesIO(data))


def _parquet(shots: Sequence[Shot], target: Path) -> None:
    table = pa.table(
        {
            "key": [_name(shot) for shot in shots],
            "url": [_url(shot) for shot in shots],
            "image": pa.array([shot.data for shot in shots], pa.binary()),
        }
    )
    pq.write_table(table, target / "photos.parquet", row_group_size=_PER_TAR, compression="none")


def _url(shot: Shot) -> str:
    return f"https://world.invalid/{_name(shot)}.jpg"


def _photo_row(shot: Shot, ids: dict[str, str]) -> dict[str, Any]:
    return {
        "photo_id": shot.photo_id,
        "path": f"{_name(shot)}.jpg",
        "width": shot.width,
        "height": shot.height,
        "kind": shot.plan.kind,
        "copy_of": ids[shot.plan.copy_of] if shot.plan.copy_of else None,
        "scene": shot.plan.scene,
    }


def _people_rows(shots: Iterable[Shot]) -> Iterator[dict[str, Any]]:
    for shot in shots:
        for index, person in enumerate(shot.people):
            yield {
                "photo_id": shot.photo_id,
                "index": index,
                "identity": person.identity,
                "outfit": person.outfit,
                "box": person.box.tolist(),
                "keypoints": person.keypoints.reshape(-1).tolist(),
                "labels": encode_map(person.labels),
                "visible_share": person.visible_share,
                "face_visible": person.face_visible,
                "main": person.main,
                **person.facts,
            }


def _outfit_rows(world: World) -> Iterator[dict[str, Any]]:
    for identity, outfits in world.outfits.items():
        for outfit in outfits:
            garments = {
                slot: {"kind": worn.kind, "colour": worn.colour, "pattern": worn.pattern}
                for slot, worn in outfit.garments
            }
            yield {
                "outfit": outfit.key,
                "identity": identity,
                "garments": json.dumps(garments, sort_keys=True),
            }
