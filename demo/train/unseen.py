"""How good the trained models are on worlds they never saw, asked through the product's backends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from curation.evaluation.answers import match_boxes
from curation.evaluation.detection import must_be_found, near_joints
from curation.evaluation.identities import draw_pairs, ten_fold_accuracy
from curation.models import Model, Models
from curation.people.atr import REGIONS
from curation.people.boxes import whole_box
from curation.people.face import align_face, assign_faces
from curation.people.face_keypoints import KeypointsFaceFinder
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.people.protocols import Detections, PersonView
from curation.people.segment_sam import SegmentAnything
from curation.people.transformers_backends import SegformerParser
from curation.people.ultralytics_backends import UltralyticsDetector
from curation.settings.people import (
    FaceSettings,
    KeypointsFaceSettings,
    OnnxEmbedderSettings,
    SegformerSettings,
    SegmentAnythingSettings,
    UltralyticsSettings,
)
from demo.train.data import MEASURING_SEED, Photo, photos

MIN_SCORE = 0.5
"""A detection counts from here on; the demo's pipeline asks for as much."""
_WORLDS = 2


def unseen_photos(cache: Path, workers: int = 1) -> list[Photo]:
    """The photos of worlds that nothing was trained on."""
    return photos(cache, MEASURING_SEED, _WORLDS, workers)


def detector(file: Path, image_px: int) -> UltralyticsDetector:
    """The trained YOLO as pipelines load it."""
    settings = UltralyticsSettings(model="yolo", image_px=image_px)
    return UltralyticsDetector(settings, card(file, "yolo"))


def card(file: Path, name: str) -> Models:
    """Weights on disk as backends are given them."""
    return {name: Model(name, str(file), "0" * 64, "ours")}


def certain(people: Detections) -> Detections:
    """Those that count."""
    keep = people.scores >= MIN_SCORE
    joints = None if people.keypoints is None else people.keypoints[keep]
    return Detections(people.boxes[keep], people.scores[keep], joints)


def detected(yolo: UltralyticsDetector, collection: list[Photo]) -> Iterator[tuple[np.ndarray, Detections]]:
    """(pixels, the people found) of each photo."""
    for start in range(0, len(collection), 16):
        pixels = [photo.pixels() for photo in collection[start : start + 16]]
        yield from zip(pixels, map(certain, yolo.detect(pixels)), strict=True)


def measure_detector(file: Path, image_px: int, collection: list[Photo]) -> dict[str, float]:
    """detect_recall, detect_precision, keypoint_pck as `persona eval` defines them, and the eyes' error.

    eye_error: mean distance of nose and eyes from the truth, in distances of the eyes, over the
    frontal faces; face_recall, face_precision: whether someone has a face, by the finder `keypoints`.
    """
    wanted = found = right = total = near = joints = 0
    eye_errors: list[float] = []
    detections: list[tuple[bool, bool]] = []
    finder = KeypointsFaceFinder(KeypointsFaceSettings(), {})
    answers = detected(detector(file, image_px), collection)
    for photo, (pixels, people) in zip(collection, answers, strict=True):
        assert people.keypoints is not None
        matches = match_boxes(people.boxes, photo.boxes)
        truths = [
            {"box": box.tolist(), "visible_share": share, "keypoints": points.reshape(-1).tolist()}
            for box, share, points in zip(photo.boxes, photo.visible, photo.keypoints, strict=True)
        ]
        must = [person for person, truth in enumerate(truths) if must_be_found(truth)]
        wanted += len(must)
        found += sum(person in matches for person in must)
        total += len(matches)
        right += sum(person is not None for person in matches)
        owners = assign_faces(
            finder.find(pixels, people), people.boxes.astype(float), list(people.keypoints.reshape(-1, 51))
        ).values()
        for place, person in enumerate(matches):
            if person is None:
                continue
            good, all_joints = near_joints(people.keypoints[place], truths[person])
            near, joints = near + good, joints + all_joints
            true = photo.keypoints[person, :3]
            has_face = bool((true[:, 2] == 2).all())
            detections.append((has_face, place in owners))
            if has_face and place in owners:
                apart = np.hypot(*(people.keypoints[place, :3, :2] - true[:, :2]).T).mean()
                eye_errors.append(float(apart / max(np.hypot(*(true[1] - true[2])[:2]), 1.0)))
    faces = np.array(detections)
    return {
        "detect_recall": found / wanted,
        "detect_precision": right / max(total, 1),
        "keypoint_pck": near / joints,
        "face_recall": float(faces[faces[:, 0], 1].mean()),
        "face_precision": float(faces[faces[:, 1], 0].mean()),
        "eye_error": float(np.mean(eye_errors)),
        "people": wanted,
    }


def seen_people(photo: Photo, people: Detections) -> tuple[np.ndarray, list[int]]:
    """(int boxes [n, 4] as stages cut them, the true person of each) of the detections that are right."""
    matches = match_boxes(people.boxes, photo.boxes)
    height, width = photo.pixels().shape[:2]
    pairs = [(place, person) for place, person in enumerate(matches) if person is not None]
    boxes = [whole_box(people.boxes[place], width, height) for place, _ in pairs]
    return np.array(boxes, int).reshape(-1, 4), [person for _, person in pairs]


def true_labels(photo: Photo, person: int, box: np.ndarray) -> np.ndarray:
    """uint8 ATR labels of a person on another integer box."""
    own, labels = photo.label_map(person)
    found = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    low, high = np.maximum(own[:2], box[:2]), np.minimum(own[2:], box[2:])
    if (high > low).all():
        (x0, y0), (x1, y1) = low, high
        found[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = labels[
            y0 - own[1] : y1 - own[1], x0 - own[0] : x1 - own[0]
        ]
    return found


def measure_segmenter(
    file: Path,
    architecture: dict[str, Any],
    crop_margin: float,
    yolo: Path,
    image_px: int,
    collection: list[Photo],
) -> dict[str, float]:
    """mask_iou: mean over the people found, of masks against true masks, by the boxes of the detector."""
    settings = SegmentAnythingSettings(model="sam", architecture=architecture, crop_margin=crop_margin)
    sam = SegmentAnything(settings, card(file, "sam"))
    ious: list[float] = []
    for photo, (pixels, people) in zip(
        collection, detected(detector(yolo, image_px), collection), strict=True
    ):
        boxes, who = seen_people(photo, people)
        if len(boxes) == 0:
            continue
        for box, person, mask in zip(boxes, who, sam.segment(pixels, boxes), strict=True):
            true = true_labels(photo, person, box) > 0
            outside = int((photo.label_map(person)[1] > 0).sum()) - int(true.sum())
            ious.append(float((mask & true).sum() / max(int((mask | true).sum()) + outside, 1)))
    return {
        "mask_iou": float(np.mean(ious)),
        "mask_iou_worst_tenth": float(np.quantile(ious, 0.1)),
        "people": len(ious),
    }


def measure_parser(folder: Path, yolo: Path, image_px: int, collection: list[Photo]) -> dict[str, float]:
    """IoU of the five regions inside the true masks, pooled over the people found, and their mean."""
    parser = SegformerParser(SegformerSettings(model="segformer"), card(folder, "segformer"))
    both, either = np.zeros(len(REGIONS)), np.zeros(len(REGIONS))
    count = 0
    for photo, (pixels, people) in zip(
        collection, detected(detector(yolo, image_px), collection), strict=True
    ):
        boxes, who = seen_people(photo, people)
        truths = [true_labels(photo, person, box) for box, person in zip(boxes, who, strict=True)]
        views = [PersonView(box, true > 0, None, None) for box, true in zip(boxes, truths, strict=True)]
        count += len(views)
        for true, labels in zip(truths, parser.parse(pixels, views), strict=True):
            for number, members in enumerate(REGIONS.values()):
                found_parts, true_parts = np.isin(labels, members), np.isin(true, members)
                both[number] += (found_parts & true_parts).sum()
                either[number] += (found_parts | true_parts).sum()
    ious = dict(zip(REGIONS, both / np.maximum(either, 1), strict=True))
    named = {f"region_iou_{name}": float(iou) for name, iou in ious.items()}
    return {"region_miou": float(np.mean(list(ious.values()))), **named, "people": count}


def measure_embedder(file: Path, yolo: Path, image_px: int, collection: list[Photo]) -> dict[str, float]:
    """face_accuracy: 2,000 pairs of faces from the detector's own keypoints, ten folds, as LFW does it.

    Faces that are smaller than pipelines ask for are left out.
    """
    embedder = OnnxFaceEmbedder(OnnxEmbedderSettings(model="face"), card(file, "face"))
    finder = KeypointsFaceFinder(KeypointsFaceSettings(), {})
    aligned: list[np.ndarray] = []
    who: list[str] = []
    place_of: list[str] = []
    widths: list[float] = []
    answers = detected(detector(yolo, image_px), collection)
    for number, (photo, (pixels, people)) in enumerate(zip(collection, answers, strict=True)):
        assert people.keypoints is not None
        matches = match_boxes(people.boxes, photo.boxes)
        faces = finder.find(pixels, people)
        owners = assign_faces(faces, people.boxes.astype(float), list(people.keypoints.reshape(-1, 51)))
        for face, place in owners.items():
            person = matches[place]
            width = faces[face].box[2] - faces[face].box[0]
            if person is not None and width >= FaceSettings.model_fields["min_face_px"].default:
                aligned.append(align_face(pixels, faces[face].points))
                who.append(photo.identities[person])
                place_of.append(str(number))
                widths.append(float(faces[face].box[2] - faces[face].box[0]))
    vectors = embedder.embed(np.stack(aligned))
    drawn = draw_pairs(who, place_of, 2000)
    assert drawn is not None
    a, b, same = drawn
    cosine = (vectors[a] * vectors[b]).sum(axis=1)
    return {
        "face_accuracy": ten_fold_accuracy(cosine, same),
        "cosine_same_5%": float(np.quantile(cosine[same], 0.05)),
        "cosine_different_99%": float(np.quantile(cosine[~same], 0.99)),
        "face_px_5%": float(np.quantile(widths, 0.05)),
        "face_px_median": float(np.median(widths)),
        "faces": len(who),
        "identities": len(set(who)),
    }
