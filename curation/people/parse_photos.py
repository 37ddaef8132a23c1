"""Photos outside of a run → their largest person, by the very stages of a pipeline's phase `people`.

For whoever needs what the shards hold of a photo that is in no shard: a reference for a generation, a
generated picture whose face is to be compared. All people are measured, whatever a threshold would say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.errors import PersonaError
from curation.fingerprint import fingerprint
from curation.meters import CallCounter
from curation.models import find_model
from curation.people.atr import decode_map
from curation.people.boxes import whole_box
from curation.people.chain import ChainContext
from curation.people.face import FaceStage
from curation.people.stages import PeopleChain
from curation.photos.pixels import Pixels
from curation.photos.read import Read
from curation.settings import PipelineSettings
from curation.settings.base import model_names
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SOURCE_SCHEMA

Row = dict[str, Any]


class NobodyError(PersonaError):
    """A photo on which no person could be parsed; `str()` is one line that names it."""

    exit_code = 2


@dataclass(frozen=True)
class ParsedPerson:
    """The largest person of a photo.

    photo       uint8 [h, w, 3], RGB, upright
    labels      uint8 [h, w], ATR labels of this person, 0 elsewhere
    embedding   float32 [n] of the face, of length 1; None where no face was found
    """

    photo: np.ndarray
    labels: np.ndarray
    embedding: np.ndarray | None


class PhotoParser:
    """The stages of one pipeline; a model is loaded when it is first asked.

    key   changes with the settings of the phase and its weights

    Raises ConfigError where weights of the phase are not found.
    """

    def __init__(self, pipeline: PipelineSettings) -> None:
        names = model_names(pipeline.people)
        models = {name: find_model(pipeline, f"people.{path}", name) for path, name in names}
        calls = CallCounter(None)
        self._pixels = Pixels(pipeline.source)
        people = pipeline.people.model_copy(update={"measure": "all"})
        self._chain = PeopleChain.of(people, ChainContext(self._pixels, calls, "all", models))
        self._read = Read(pipeline.photos.screen, pipeline.source, PhotoBytes(pipeline.source), calls)
        weights = {name: model.sha256 for name, model in models.items()}
        versions = [stage.version for stage in (self._read, *self._chain.stages)]
        self.key = fingerprint([pipeline.people.ruling(), weights, versions])

    def parse(self, files: Sequence[Path]) -> list[ParsedPerson]:
        """One person for each file. Raises NobodyError for a file that cannot be read or shows nobody."""
        try:
            found = self._measured(files, self._chain)
            return [self._person(*shown, file) for shown, file in zip(found, files, strict=True)]
        finally:
            self._pixels.close()

    def faces(self, files: Sequence[Path]) -> list[np.ndarray | None]:
        """float32 [n] of length 1, the face of the largest person with one; None where none was found."""
        stages = self._chain.on_people
        last = next(n for n, stage in enumerate(stages) if isinstance(stage, FaceStage))
        try:
            found = self._measured(files, replace(self._chain, on_people=stages[: last + 1]))
            return [_largest_face(people) for _, people in found]
        finally:
            self._pixels.close()

    def _measured(self, files: Sequence[Path], chain: PeopleChain) -> list[tuple[Row, list[Row]]]:
        """Of each file the row of the photo and those of its people."""
        listed = [
            {"source_key": str(number), "uri": str(file.absolute()), "file_name": file.name}
            for number, file in enumerate(files)
        ]
        photos, people = chain(self._read(pa.Table.from_pylist(listed, SOURCE_SCHEMA)))
        found: list[tuple[Row, list[Row]]] = [(photo, []) for photo in photos.to_pylist()]
        for person in people.to_pylist():
            found[int(person["source_key"])][1].append(person)
        return found

    def _person(self, photo: Row, people: list[Row], file: Path) -> ParsedPerson:
        rows = (photo, *people)
        errors = [
            row[name] for row in rows for name in row if name.endswith("_error") and row[name] is not None
        ]
        if photo["undecoded"] is not None:
            errors.append(f"{photo['undecoded'].replace('_', ' ')}: over a limit of photos.screen")
        if errors:
            raise NobodyError(f"{file}: {errors[0]}")
        parsed = [
            (whole_box(np.array(person["box"]), photo["width"], photo["height"]), person)
            for person in people
            if person["labels"] is not None
        ]
        if not parsed:
            raise NobodyError(f"{file}: no person was found on it")
        (x0, y0, x1, y1), person = max(parsed, key=lambda one: int(np.prod(one[0][2:] - one[0][:2])))
        labels = np.zeros((photo["height"], photo["width"]), np.uint8)
        labels[y0:y1, x0:x1] = decode_map(person["labels"])
        return ParsedPerson(self._pixels.rgb(photo), labels, _embedding(person))


def _embedding(person: Row) -> np.ndarray | None:
    face = person["face"]
    return np.frombuffer(face["embedding"], "<f4") if face and face["found"] else None


def _largest_face(people: list[Row]) -> np.ndarray | None:
    faces = [person for person in people if _embedding(person) is not None]
    return _embedding(max(faces, key=_face_area)) if faces else None


def _face_area(person: Row) -> float:
    x0, y0, x1, y1 = person["face"]["box"]
    return float((x1 - x0) * (y1 - y0))
