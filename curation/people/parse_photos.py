"""Photos outside of a run → their largest person, by the very stages of a pipeline's phase `people`.

For whoever needs what the shards hold of a photo that is in no shard: a reference for a generation, a
generated picture whose face is to be compared. All people are measured, whatever a threshold would say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from curation.people.stages import people_stages
from curation.photos.pixels import Pixels
from curation.photos.read import Read
from curation.settings import PipelineSettings
from curation.settings.base import model_names
from curation.sources.photo_bytes import PhotoBytes
from curation.sources.rows import SOURCE_SCHEMA
from curation.stage import Stage, with_columns


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
        people = pipeline.people.model_copy(update={"measure": "all"})
        self._pixels = Pixels(pipeline.source)
        chain = ChainContext(self._pixels, calls, "all", models)
        read = Read(pipeline.photos.screen, pipeline.source, PhotoBytes(pipeline.source), calls)
        self._stages: list[Stage] = [read, *people_stages(people, chain)]
        weights = {name: model.sha256 for name, model in models.items()}
        versions = [stage.version for stage in self._stages]
        self.key = fingerprint([pipeline.people.ruling(), weights, versions])

    def parse(self, files: Sequence[Path]) -> list[ParsedPerson]:
        """One person for each file. Raises NobodyError for a file that cannot be read or shows nobody."""
        try:
            rows = self._measured(files, self._stages)
            return [self._person(row, file) for row, file in zip(rows, files, strict=True)]
        finally:
            self._pixels.close()

    def faces(self, files: Sequence[Path]) -> list[np.ndarray | None]:
        """float32 [n] of length 1, the face of the largest person with one; None where none was found."""
        last = next(n for n, stage in enumerate(self._stages) if isinstance(stage, FaceStage))
        try:
            return [_largest_face(row) for row in self._measured(files, self._stages[: last + 1])]
        finally:
            self._pixels.close()

    def _measured(self, files: Sequence[Path], stages: Sequence[Stage]) -> list[dict[str, Any]]:
        listed = [
            {"source_key": str(number), "uri": str(file.absolute()), "file_name": file.name}
            for number, file in enumerate(files)
        ]
        table = pa.Table.from_pylist(listed, SOURCE_SCHEMA)
        for stage in stages:
            table = stage(with_columns(table, stage.fills))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _person(self, row: dict[str, Any], file: Path) -> ParsedPerson:
        errors = [row[name] for name in row if name.endswith("_error") and row[name] is not None]
        if row["undecoded"] is not None:
            errors.append(f"{row['undecoded'].replace('_', ' ')}: over a limit of photos.screen")
        if errors:
            raise NobodyError(f"{file}: {errors[0]}")
        parsed = [i for i, labels in enumerate(row["labels"] or []) if labels is not None]
        if not parsed:
            raise NobodyError(f"{file}: no person was found on it")
        boxes = [whole_box(np.array(box), row["width"], row["height"]) for box in row["boxes"]]
        largest = max(parsed, key=lambda i: int(np.prod(boxes[i][2:] - boxes[i][:2])))
        x0, y0, x1, y1 = boxes[largest]
        labels = np.zeros((row["height"], row["width"]), np.uint8)
        labels[y0:y1, x0:x1] = decode_map(row["labels"][largest])
        face = row["faces"][largest]
        embedding = np.frombuffer(face["embedding"], "<f4") if face and face["found"] else None
        return ParsedPerson(self._pixels.rgb(row), labels, embedding)


def _largest_face(row: dict[str, Any]) -> np.ndarray | None:
    faces = [face for face in row["faces"] or [] if face and face["found"]]
    if not faces:
        return None
    return np.frombuffer(max(faces, key=_face_area)["embedding"], "<f4")


def _face_area(face: dict[str, Any]) -> float:
    x0, y0, x1, y1 = face["box"]
    return float((x1 - x0) * (y1 - y0))
