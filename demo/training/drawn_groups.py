"""Shards of people of the world, made from its truth: no detector, parser or judge takes part.

`make demo` trains on the shards that its curation made, which are few. To measure whether a method
learns takes more people than that, and the same truth for all of them: here are as many as wanted,
each in one outfit, in the format of every other dataset.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from curation.people.atr import REGIONS, region_shares
from demo.world import PersonTruth, Rendered, caption_of, make_identity, make_outfits, render, snapshot
from demo.world.collection import jpeg
from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import Group, PhotoMember, members_of

_LEAST_SHARE = 0.01  # of a person's pixels: a region with fewer is not visible, as in curation's default
_LONG = {"full": 0.8, "knees_up": 0.2}  # framings, and their odds
_SHARD = 100  # groups


@dataclass(frozen=True)
class DrawnGroups:
    """What to draw: people `first` to `first + people - 1` of the world `seed`, each in one outfit.

    photos   of each group
    height_px   of a photo; the world's own are 640 to 896 px high, and take as much longer to draw
    """

    seed: int
    people: int
    photos: int = 3
    height_px: int = 320
    first: int = 0


def write_groups(folder: Path, drawn: DrawnGroups, processes: int = 2) -> None:
    """Writes the dataset, unless it is there whole. The same groups give the same bytes."""
    if (folder / "dataset.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with DatasetWriter(str(folder), max_samples=_SHARD) as writer:
        for key, members in _groups(drawn, processes):
            writer.add(key, members)
        writer.close("people of the rendered world", {"pipeline": "demo.training.drawn_groups"})


def _groups(drawn: DrawnGroups, processes: int) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    numbers = range(drawn.first, drawn.first + drawn.people)
    work = [(drawn, number) for number in numbers]
    if processes < 2:
        yield from map(_group, work)
        return
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_group, work, chunksize=8)


def _group(work: tuple[DrawnGroups, int]) -> tuple[str, Mapping[str, bytes]]:
    """(key, members by suffix) of one person in one outfit."""
    cv2.setNumThreads(1)
    drawn, number = work
    identity = make_identity(drawn.seed, number)
    outfit = make_outfits(identity, 1)[0]
    random = np.random.default_rng([drawn.seed, number, 9])
    key = f"{drawn.seed:08x}{number:08x}-a"
    photos = []
    for shot in range(drawn.photos):
        framing = str(random.choice(list(_LONG), p=list(_LONG.values())))
        plan = snapshot(identity, outfit, shot, framing=framing)
        width = round(plan.width * drawn.height_px / plan.height)
        rendered = render(replace(plan, width=width, height=drawn.height_px))
        photos.append(_photo(rendered, plan.jpeg_quality, shot))
    record = {"group": key, "identity": key.rpartition("-")[0], "outfit": "a"}
    members = members_of(Group(key, record, photos))
    return key, {name.removeprefix(f"{key}."): data for name, data in members}


def _photo(rendered: Rendered, quality: int, shot: int) -> PhotoMember:
    """A photo with its person's record, as curation writes them, as far as the world knows it."""
    person = next(person for person in rendered.people if person.main)
    height, width = rendered.image.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    x0, y0 = np.floor(person.box[:2]).astype(int)
    tall, wide = person.labels.shape
    labels[y0 : y0 + tall, x0 : x0 + wide] = person.labels
    data = jpeg(rendered.image, quality)
    photo_id = hashlib.sha256(data).hexdigest()
    record = {
        "photo_id": photo_id,
        "person_id": f"{photo_id}-0",
        "width": width,
        "height": height,
        "orientation": 1,
        "box": [round(float(x), 2) for x in person.box],
        "keypoints": [round(float(x), 2) for x in person.keypoints.reshape(-1)],
        "regions": visible_regions(person),
        "caption": caption_of(person.facts, shot),
        "licence": "CC0-1.0",
    }
    return PhotoMember(data, "jpeg", record, labels)


def visible_regions(person: PersonTruth) -> list[str]:
    """Names of the regions that have at least a hundredth of the person's pixels."""
    shares = region_shares(person.labels, person.labels > 0)
    return [name for name, share in zip(REGIONS, shares, strict=True) if share >= _LEAST_SHARE]
