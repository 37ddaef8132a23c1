"""What a run answered: its tables as small records, matched to the people that are really there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from curation.errors import ConfigError, PersonaError
from curation.evaluation.truth import Truth
from curation.ledger import KEPT
from curation.people.face import FaceStage
from curation.people.lone_faces import own_face
from curation.photos.copies import Copies
from curation.run_folder import Run
from curation.settings.people import PeopleSettings

MIN_IOU = 0.5


def match_boxes(found: np.ndarray, true: np.ndarray, min_iou: float = MIN_IOU) -> list[int | None]:
    """For each found box the place of its true box, or None; each true box is given once.

    found float [n, 4], true float [m, 4] as x0, y0, x1, y1. Of all assignments whose pairs reach
    `min_iou` it takes one with the most pairs, and among those the largest sum of overlaps.
    """
    matches: list[int | None] = [None] * len(found)
    if len(found) == 0 or len(true) == 0:
        return matches
    overlap = box_iou(found, true)
    # A pair more counts for more than all overlaps together.
    worth = np.where(overlap >= min_iou, overlap + min(overlap.shape) + 1, 0)
    for i, j in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
        if overlap[i, j] >= min_iou:
            matches[i] = int(j)
    return matches


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float [n, m]: intersection over union of boxes [n, 4] and [m, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(union, 1e-9))


@dataclass(frozen=True)
class Photo:
    """A row of the barrier `photos/`. `screened`: it reached the search for copies."""

    photo_id: str
    source_key: str
    screened: bool
    copy_of: str | None


@dataclass(frozen=True)
class Person:
    """A person that was found, and what was measured of it; None where it was not.

    box       float [4] x0, y0, x1, y1 in px of the photo
    keypoints float [17, 3] x, y, score
    mask, labels  PNG bytes on `whole_box(box)`
    embedding float32, only where the stage `face` kept the person
    truth     the row of people.parquet that it was matched to
    lone_face float [4] the box of the face that the person was derived from; None where a detector found it
    """

    person_id: str
    photo_id: str
    box: np.ndarray
    keypoints: np.ndarray | None
    mask: bytes | None
    labels: bytes | None
    embedding: np.ndarray | None
    truth: dict[str, Any] | None
    lone_face: np.ndarray | None = None


@dataclass(frozen=True)
class LookedAt:
    """A photo that the detector saw: its size in px, its people, and the truth's people."""

    photo_id: str
    width: int
    height: int
    people: list[Person]
    truth: list[dict[str, Any]]


@dataclass(frozen=True)
class Identified:
    """A person that reached the phase `identities`; `kept` unless that phase ruled it out."""

    person_id: str
    identity: str
    kept: bool


@dataclass
class Answers:
    """All that the measures of curation/evaluation look at.

    pairs     (person_id, person_id, same or None) that the judge was asked, and what it said
    groups    {group: person_ids} of the groups that were packed
    captions  {person_id: caption} of the people whose caption was kept
    """

    photos: list[Photo] = field(default_factory=list)
    looked_at: list[LookedAt] = field(default_factory=list)
    identified: list[Identified] = field(default_factory=list)
    pairs: list[tuple[str, str, bool | None]] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def truth_of(self) -> dict[str, dict[str, Any] | None]:
        """{person_id: the matched row of people.parquet, or None}."""
        return {person.person_id: person.truth for photo in self.looked_at for person in photo.people}


def read_answers(folder: str, truth: Truth) -> Answers:
    """Reads a finished run. Raises PersonaError when it is not finished or is of other photos."""
    run = Run(folder)
    _, pipeline = run.pipeline()
    status = run.status or {"state": "not started"}
    if status["state"] != "finished":
        raise PersonaError(
            f"{folder}: is {status['state']}, not finished; `persona status {folder}` says more"
        )
    answers = Answers(photos=list(_photos(run)))
    if not any(photo.photo_id in truth.photos for photo in answers.photos):
        raise ConfigError(
            f"{folder}: none of its {len(answers.photos)} photos is in the truth; another collection?"
        )
    answers.looked_at = list(_looked_at(run, truth, pipeline.people))
    answers.identified = list(read_identified(folder))
    for row in run.outfits.rows(["pairs"]):
        answers.pairs += [(pair["a"], pair["b"], pair["same"]) for pair in row["pairs"] or []]
    for row in run.captions.rows(["person_id", "photo_caption", "verdict"]):
        if row["verdict"] == KEPT:
            answers.captions[row["person_id"]] = row["photo_caption"]
    groups = run.groups(["group", "person_ids", "verdict"])
    if groups is not None:
        for row in groups.to_pylist():
            if row["verdict"] == KEPT:
                answers.groups[row["group"]] = row["person_ids"]
    return answers


def read_looked_at(folder: str, truth: Truth) -> Iterator[LookedAt]:
    """The photos that the detector saw, of a run that has at least its people."""
    run = Run(folder)
    _, pipeline = run.pipeline()
    return _looked_at(run, truth, pipeline.people)


def _photos(run: Run) -> Iterator[Photo]:
    for row in run.photos.rows(["photo_id", "source_key", "copy_of", "decisions"]):
        if row["photo_id"] is not None:
            screened = row["decisions"][-1]["stage"] == Copies.name
            yield Photo(row["photo_id"], row["source_key"], screened, row["copy_of"])


def _looked_at(run: Run, truth: Truth, people_settings: PeopleSettings) -> Iterator[LookedAt]:
    certain_from, lone = people_settings.detect.min_score, people_settings.lone_faces
    least = {False: certain_from, True: certain_from if lone is None else lone.min_score}
    of_person = [
        "person_id",
        "box",
        "box_score",
        "keypoints",
        "from_face",
        "face",
        "mask",
        "labels",
        "decisions",
    ]
    for photo, found in run.photos_with_people(["photo_id", "width", "height", "people"], of_person):
        if photo["people"] is None or photo["photo_id"] not in truth.photos:
            continue
        there = truth.people.get(photo["photo_id"], [])
        certain = [person for person in found if person["box_score"] >= least[own_face(person) is not None]]
        boxes = np.array([person["box"] for person in certain], np.float64).reshape(-1, 4)
        matches = match_boxes(boxes, np.array([person["box"] for person in there]).reshape(-1, 4))
        people = [
            _person(person, photo["photo_id"], box, None if match is None else there[match])
            for person, box, match in zip(certain, boxes, matches, strict=True)
        ]
        yield LookedAt(photo["photo_id"], photo["width"], photo["height"], people, there)


def _person(row: dict[str, Any], photo_id: str, box: np.ndarray, truth: dict[str, Any] | None) -> Person:
    keypoints, face, own = row["keypoints"], row["face"], own_face(row)
    face_kept = any(d["stage"] == FaceStage.name and d["verdict"] == KEPT for d in row["decisions"])
    return Person(
        person_id=row["person_id"],
        photo_id=photo_id,
        box=box,
        keypoints=None if keypoints is None else np.array(keypoints).reshape(17, 3),
        mask=row["mask"],
        labels=row["labels"],
        embedding=np.frombuffer(face["embedding"], "<f4") if face_kept and face else None,
        lone_face=None if own is None else own.box,
        truth=truth,
    )


def read_identified(folder: str) -> Iterator[Identified]:
    """Everyone who reached the phase `identities`."""
    for row in Run(folder).identities.rows(["person_id", "identity", "verdict"]):
        if row["identity"] is not None:
            yield Identified(row["person_id"], row["identity"], row["verdict"] == KEPT)


_NOSE, _EYES = 0, (1, 2)  # of COCO's joints


def whose_faces(photos: Iterable[LookedAt]) -> dict[str, str | None]:
    """{person_id: the true identity, or None} of everyone whom the detector kept."""
    return {name: None if row is None else str(row["identity"]) for name, row in who_is_shown(photos).items()}


def who_is_shown(photos: Iterable[LookedAt]) -> dict[str, dict[str, Any] | None]:
    """{person_id: the true person, a row of people.parquet, or None} of everyone whom the detector kept.

    A detection without a matched box is the only person of the photo whose nose and eyes are visible and
    whose nose lies within one distance of their eyes of the detected nose, or, of a person who was derived
    from a face, in that face.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for photo in photos:
        for person in photo.people:
            if person.truth is not None:
                found[person.person_id] = person.truth
                continue
            if person.lone_face is not None:
                near = _inside(person.lone_face, photo.truth)
            else:
                near = [] if person.keypoints is None else _near(person.keypoints[_NOSE, :2], photo.truth)
            found[person.person_id] = near[0] if len(near) == 1 else None
    return found


def _near(nose: np.ndarray, people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    near = []
    for row in people:
        joints = np.reshape(row["keypoints"], (17, 3))
        eyes = float(np.hypot(*(joints[_EYES[0], :2] - joints[_EYES[1], :2])))
        if _is_seen(joints) and float(np.hypot(*(nose - joints[_NOSE, :2]))) <= eyes:
            near.append(row)
    return near


def _inside(face: np.ndarray, people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inside = []
    for row in people:
        joints = np.reshape(row["keypoints"], (17, 3))
        x, y = joints[_NOSE, :2]
        if _is_seen(joints) and face[0] <= x <= face[2] and face[1] <= y <= face[3]:
            inside.append(row)
    return inside


def _is_seen(joints: np.ndarray) -> bool:
    return bool(joints[[_NOSE, *_EYES], 2].min() == 2)
