"""Eight photos for a rehearsal with random weights, and the people on them: such weights find nobody."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.backends import build_backend
from curation.models import Model, Models
from curation.people.atr import encode_map
from curation.people.boxes import whole_box
from curation.people.face_opencv import YunetFaceFinder
from curation.people.protocols import Detections, Face
from curation.people.ultralytics_backends import quiet_ultralytics
from curation.photos.decode import decode_rgb
from curation.pipeline_file import load_pipeline
from curation.settings import PipelineSettings
from curation.settings.people import YunetSettings

PIPELINE, COMMERCIAL = "visual-persona-500k", "visual-persona-commercial"
ROOT = Path(__file__).resolve().parent.parent
_REAL = (
    "test_obama1", "test_obama_and_biden", "train_biden_biden", "train_biden_biden2", "train_obama_obama",
    "train_obama_obama2",
)  # fmt: skip
_ENLARGED_PX = (5060, 10200)  # longer sides: 19 and 59 million pixels; photos.screen lets 64 million in
_NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Place:
    """Where a rehearsal lies."""

    folder: Path

    @property
    def photos(self) -> Path:
        """The collection."""
        return self.folder / "photos"

    @property
    def weights(self) -> Path:
        """`models.path` of the pipeline."""
        return self.folder / "weights"

    @property
    def given(self) -> Path:
        """Who is on each photo, as `write_photos` says it."""
        return self.folder / "given.json"

    def pipeline(self, name: str = PIPELINE) -> PipelineSettings:
        """The pipeline over these photos and weights."""
        places = [f"models.path={self.weights}", "source.kind=folder", f"source.path={self.photos}"]
        return load_pipeline(str(ROOT / "pipelines.yaml"), name, places)

    def files(self) -> dict[str, str]:
        """{card: file below `weights`} of both pipelines."""
        both = (self.pipeline(name).models.cards for name in (PIPELINE, COMMERCIAL))
        return {name: card.file for cards in both for name, card in cards.items()}

    def parameters(self) -> dict[str, int]:
        """{card: parameters} of the weights that were written."""
        file = self.folder / "parameters.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def shown(self) -> list[tuple[np.ndarray, list[dict[str, Any]]]]:
        """Each photo, and who is given on it."""
        given = json.loads(self.given.read_text())
        photos = [decode_rgb(file.read_bytes()) for file in sorted(self.photos.iterdir())]
        return [(photo, given[pixels_key(photo)]) for photo in photos]


def write_photos(folder: Path, yunet: Path, real: Path) -> dict[str, list[dict[str, Any]]]:
    """Eight photos, and who is on each, by `pixels_key`: `box` [4] and `joints` [17, 3] in px of the photo.

    Where YuNet's weights and real photos lie, two samples of ultralytics, enlarged, and six of those; people
    are given around the faces that YuNet finds. Else drawn photos with their true people, two enlarged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = {}
    files = [file for name in _REAL if (file := real / f"{name}.jpg").exists()]
    if yunet.exists() and len(files) == len(_REAL):
        finder = YunetFaceFinder(
            YunetSettings(model="yunet", floor=0.8), {"yunet": Model("yunet", str(yunet), "", "")}
        )
        samples = Path(quiet_ultralytics().__file__ or "").parent / "assets"
        for file, longer_px in [*((file, 0) for file in files), *zip(
            (samples / "bus.jpg", samples / "zidane.jpg"), _ENLARGED_PX, strict=True
        )]:  # fmt: skip
            photo = _written(folder / file.name, np.asarray(cv2.imread(str(file))), longer_px)
            given[pixels_key(photo)] = people_around(finder.find(photo, _NOBODY), *photo.shape[1::-1])
        return given
    for number, drawn in enumerate(itertools.islice(_drawn(), 8)):
        image, longer_px = drawn.image, [*_ENLARGED_PX, *[0] * 6][number]
        photo = _written(folder / f"drawn{number}.jpg", image[..., ::-1], longer_px)
        scale = photo.shape[0] / image.shape[0]
        given[pixels_key(photo)] = [
            {
                "box": (person.box * scale).tolist(),
                "joints": (person.keypoints * [scale, scale, 0.5]).tolist(),
            }
            for person in drawn.people
        ]
    return given


def _drawn() -> Iterator[Any]:
    from demo.world import make_world, render

    for plan in make_world(1, 100).photos:
        drawn = render(plan)
        if any(person.face_visible for person in drawn.people):
            yield drawn


def _written(file: Path, bgr: np.ndarray, longer_px: int) -> np.ndarray:
    """The photo as the product decodes it, after it was enlarged (0: as it is) and written."""
    if longer_px:
        scale = longer_px / max(bgr.shape[:2])
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(file), bgr)
    return decode_rgb(file.read_bytes())


def people_around(faces: Sequence[Face], width: int, height: int) -> list[dict[str, Any]]:
    """A body of eight faces' height below each face; joints outside of the photo are not seen."""
    people = []
    for face in faces:
        x0, y0, x1, y1 = (float(value) for value in face.box)
        wide, high, middle = x1 - x0, y1 - y0, (x0 + x1) / 2
        right_eye, left_eye, nose = face.points[:3]
        joints = [nose, left_eye, right_eye, (x1, left_eye[1]), (x0, right_eye[1])]
        for down in (1.6, 2.8, 3.8, 4.0, 5.8, 7.5):  # shoulders, elbows, wrists, hips, knees, ankles
            joints += [(middle + side * 0.8 * wide, y0 + down * high) for side in (1, -1)]
        seen = [(float(x), float(y), 0.9 if 0 <= x < width and 0 <= y < height else 0.1) for x, y in joints]
        box = (middle - 1.6 * wide, y0 - 0.4 * high, middle + 1.6 * wide, y0 + 8 * high)
        people.append({"box": whole_box(box, width, height).tolist(), "joints": seen})
    return people


def pixels_key(photo: np.ndarray) -> str:
    """What a photo is found again by."""
    return hashlib.sha256(photo.tobytes()).hexdigest()


def detections_of(people: list[dict[str, Any]]) -> Detections:
    """Given people as a detector's answer, each with a score of 0.99."""
    return Detections(
        np.array([person["box"] for person in people], np.float32).reshape(-1, 4),
        np.full(len(people), 0.99, np.float32),
        np.array([person["joints"] for person in people], np.float32).reshape(-1, 17, 3),
    )


class GivenPeople:
    """A PersonDetector that asks the one of a pipeline, and answers with the people of a file instead.

    Options: `given` (the file), `pipeline` (its name). Joints are given where that detector gives some.
    """

    def __init__(self, settings: Any, models: Models) -> None:
        self._given: dict[str, Any] = json.loads(Path(settings.options["given"]).read_text())
        pipeline = load_pipeline(str(ROOT / "pipelines.yaml"), settings.options["pipeline"])
        self._detector = build_backend("detector", pipeline.people.detect.by, models)

    def detect(self, photos: list[np.ndarray]) -> list[Detections]:
        """Given boxes, each with a score of 0.99."""
        asked = self._detector.detect(photos)
        given = [detections_of(self._given[pixels_key(photo)]) for photo in photos]
        return [
            people if real.keypoints is not None else replace(people, keypoints=None)
            for people, real in zip(given, asked, strict=True)
        ]


def people_rows(place: Place) -> list[dict[str, Any]]:
    """Three people of three photos, as the phase `outfits` hands them to a judge."""
    rows = []
    for file in sorted(place.photos.iterdir(), key=lambda file: file.stat().st_size)[:3]:
        data = file.read_bytes()
        photo = decode_rgb(data)
        person = json.loads(place.given.read_text())[pixels_key(photo)][0]
        x0, y0, x1, y1 = whole_box(person["box"], photo.shape[1], photo.shape[0])
        photo_id = hashlib.sha256(data).hexdigest()
        rows.append({
            "person_id": f"{photo_id}-0", "photo_id": photo_id, "source_key": file.name, "uri": str(file),
            "offset": None, "length": None, "row": None, "orientation": 1, "box": person["box"],
            "mask": encode_map(np.full((y1 - y0, x1 - x0), 255, np.uint8)),
        })  # fmt: skip
    return rows
