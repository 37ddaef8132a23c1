"""A group as a sample of the dataset: photos with records and label maps, smaller where settings say so."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from curation.people.atr import decode_map
from curation.people.boxes import whole_box
from curation.photos.decode import decode_rgb
from curation.settings.groups import ShardsSettings
from curation.sources.photo_bytes import PhotoBytes
from shards.format.colour import changes_colours
from shards.format.embedded import embedded_in
from shards.format.orientation import with_orientation
from shards.format.sample import Group, PhotoMember
from shards.format.stated_rights import MARKS, NoReaderError, joined_marks, marks_of
from shards.format.stripped import without_metadata

_CELLS = 6  # of a blurred head, along its longer side: what is left tells nobody apart
_COORDINATES = {"box": 2, "face_box": 2, "face_points": 2, "keypoints": 3}  # numbers a point


def build_group(
    key: str, people: list[dict[str, Any]], photos: PhotoBytes, settings: ShardsSettings
) -> Group:
    """A sample of a group's people. Raises ValueError where a photo is no longer the one judged."""
    members = []
    for person in people:
        data = photos.read(person)
        if hashlib.sha256(data).hexdigest() != person["photo_id"]:
            raise ValueError(f"{person['source_key']} has changed since it was read")
        labels = np.zeros((person["height"], person["width"]), np.uint8)
        x0, y0, x1, y1 = whole_box(np.array(person["box"]), person["width"], person["height"])
        labels[y0:y1, x0:x1] = decode_map(person["labels"])
        data = with_orientation(data, person["orientation"])
        photo = PhotoMember(data, person["format"], photo_record(person), labels)
        members.append(as_wanted(photo, settings, person.get("heads_of_others") or []))
    identity, _, outfit = key.rpartition("-")
    apart = [person["diversity"] for person in people if person["diversity"] is not None]
    record = {
        "group": key,
        "identity": identity,
        "outfit": outfit,
        "diversity": round(sum(apart) / len(apart), 4) if apart else None,
    }
    return Group(key, record, members)


def photo_record(person: dict[str, Any]) -> dict[str, Any]:
    """What a shard says of a photo: no embedding, and no place of this machine."""
    face = person["face"]
    carried = ["source_url", "page_url", "author", "licence", "consent", "collection", "subject_hint"]
    return {
        "photo_id": person["photo_id"],
        "person_id": person["person_id"],
        "file_name": person["file_name"],
        "width": person["width"],
        "height": person["height"],
        "orientation": person["orientation"],
        "box": _rounded(person["box"]),
        "box_score": round(person["box_score"], 4),
        "keypoints": _rounded(person["keypoints"]),
        "face_box": _rounded(face["box"]),
        "face_points": _rounded(face["points"]),
        "face_score": round(face["score"], 4),
        "regions": person["regions"],
        "caption": person["photo_caption"],
        "source_caption": person["caption"],
        "diversity": person["diversity"],
        **{name: person[name] for name in carried},
        **({MARKS: json.loads(person[MARKS])} if person.get(MARKS) else {}),
    }


def _rounded(values: list[float] | None) -> list[float] | None:
    return None if values is None else [round(value, 2) for value in values]


def as_wanted(
    photo: PhotoMember, settings: ShardsSettings, heads: Sequence[Sequence[float]] = ()
) -> PhotoMember:
    """The photo as settings want it in a shard; the same one where that is how it was collected.

    heads   of the other people on it: x0, y0, x1, y1 in px

    Without metadata its record says under `stripped` what was there: {kind: bytes}, and under `stated_marks`
    what that stated of mining and source, joined with what it stated there before (`joined_marks`). Only what
    needs other pixels is encoded anew, and what cannot be stripped, as an animation that does not fill its
    canvas: `encoded_anew`. Raises OSError or ValueError for a broken photo.
    """
    made = _as_wanted(photo, settings, heads)
    if made is photo:
        return photo
    try:
        marks = marks_of(photo.data)
    except NoReaderError:  # a run that passed it over was told not to read them
        marks = marks_of(photo.data, credentials=False)
    marks = joined_marks(made.record.get(MARKS), marks)
    return replace(made, record={**made.record, MARKS: marks}) if marks else made


def _as_wanted(photo: PhotoMember, settings: ShardsSettings, heads: Sequence[Sequence[float]]) -> PhotoMember:
    longer = max(photo.record["width"], photo.record["height"])
    is_too_large = settings.max_side_px is not None and longer > settings.max_side_px
    to_srgb = settings.colours == "srgb" and changes_colours(embedded_in(photo.data).profile)
    heads = heads if settings.blur_others else ()
    if is_too_large or to_srgb or heads:
        return encoded_anew(photo, settings, to_srgb, heads)
    if settings.metadata == "keep":
        return photo
    try:
        bare = without_metadata(photo.data, keep_profile=settings.colours == "profile")
    except ValueError:  # decoders read more than can be taken apart
        return encoded_anew(photo, settings, to_srgb, why=["metadata"])
    if not bare.gone:
        return photo
    return replace(photo, data=bare.data, record={**photo.record, "stripped": dict(bare.gone)})


def encoded_anew(
    photo: PhotoMember,
    settings: ShardsSettings,
    to_srgb: bool,
    heads: Sequence[Sequence[float]] = (),
    why: Sequence[str] = (),
) -> PhotoMember:
    """The photo upright and in sRGB as a JPEG of pixels alone, its longer side at most `max_side_px`, heads
    of others blurred.

    The record's coordinates are those of the new photo, `resized_from` is the old [width, height] where it
    became smaller, and `reencoded` says why else; photo_id stays the hash of what was collected.
    """
    width, height = photo.record["width"], photo.record["height"]
    scale = min((settings.max_side_px or max(width, height)) / max(width, height), 1)
    pixels, labels = decode_rgb(photo.data), photo.labels
    record = {**photo.record, "orientation": 1}
    why = [*why, *(["colours"] if to_srgb else []), *(["blurred_faces"] if heads else [])]
    if why:
        record["reencoded"] = why
    if heads:
        record["blurred_faces"] = len(heads)
        pixels = blurred(pixels, heads, photo.record["face_box"])
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
        factors = (size[0] / width, size[1] / height)
        record |= {"width": size[0], "height": size[1], "resized_from": [width, height]}
        for name, numbers in _COORDINATES.items():
            record[name] = _scaled(record[name], factors, numbers)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=settings.jpeg_quality)
    return replace(photo, data=sink.getvalue(), format="jpeg", record=record, labels=labels)


def _scaled(values: list[float] | None, factors: tuple[float, float], numbers: int) -> Any:
    """x and y of each point scaled; a third number of a point, its score, stays."""
    if values is None:
        return None
    return [
        round(value * factors[place % numbers], 2) if place % numbers < 2 else value
        for place, value in enumerate(values)
    ]


def blurred(
    pixels: np.ndarray, heads: Sequence[Sequence[float]], spared: Sequence[float] | None
) -> np.ndarray:
    """A copy of an upright picture, uint8 [height, width, 3], whose heads are means of few cells.

    spared   the face of the group's own person: it stays as it is also where a head overlaps it
    """
    made = pixels.copy()
    for head in heads:
        x0, y0, x1, y1 = _inside(head, pixels)
        if x1 <= x0 or y1 <= y0:
            continue
        part = made[y0:y1, x0:x1]
        step = max(x1 - x0, y1 - y0) / _CELLS
        cells = (max(round((x1 - x0) / step), 1), max(round((y1 - y0) / step), 1))
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        made[y0:y1, x0:x1] = cv2.resize(small, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    if spared is not None:
        x0, y0, x1, y1 = _inside(spared, pixels)
        made[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
    return made


def _inside(box: Sequence[float], pixels: np.ndarray) -> tuple[int, int, int, int]:
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (round(side) for side in box)
    return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
