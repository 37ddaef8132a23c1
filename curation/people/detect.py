"""Stage `detect`: the people of each photo, and `detected`: whether each is certain enough."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import list_array
from curation.declared import Declared, Threshold
from curation.errors import PersonaError, one_line
from curation.ledger import (
    ERROR,
    NOT_MEASURED,
    REJECTED,
    Check,
    Outcome,
    at_least,
    failed,
    is_kept,
    judged,
    rule_rows,
)
from curation.models import Models
from curation.people.chain import ChainContext, ChainStage
from curation.people.protocols import Detections
from curation.settings.people import DetectSettings
from curation.stage import set_columns


class Detected(Declared):
    """Decisions of Detect about each person that it finds."""

    name: ClassVar[str] = "detected"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = DetectSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("low_score", "people.detect.min_score", "at least", "detection of the person"),
        Threshold(
            "face_score",
            "people.lone_faces.min_score",
            "at least",
            "certainty of a face that lies in nobody's box",
        ),
        Threshold("crowd", "people.detect.max_people", "at most", "people on the photo"),
    )


FOUND = [
    ("box", pa.list_(pa.float32())),
    ("box_score", pa.float32()),
    ("keypoints", pa.list_(pa.float32())),
]
# What a person in the chain has of its photo, so that stages of people need to look nowhere else.
OF_PHOTO = ("photo_id", "uri", "offset", "length", "row", "orientation", "width", "height")


class Detect(ChainStage):
    """The step from photos to people: `measure` finds them, `people` makes them rows, `rule` rules on both.

    person_id = photo_id + "-" + place in the list, best score first.
    """

    name: ClassVar[str] = "detect"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = DetectSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("no_person", "people.detect.min_score", "at least", "best detection"),
        Threshold("crowd", "people.detect.max_people", "at most", "people on the photo"),
    )
    fills: ClassVar[pa.Schema] = pa.schema(
        [("found", pa.list_(pa.struct(FOUND))), ("detect_error", pa.string())]
    )
    version: ClassVar[int] = ChainStage.version + 1  # a list of people, where it was lists of their columns

    def __init__(self, settings: DetectSettings, chain: ChainContext, models: Models | None = None) -> None:
        super().__init__(settings, chain, models)
        self._batch = getattr(settings.by, "batch_size", 1)

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos still in that no detector has seen."""
        never = pc.and_(table["found"].is_null(), table[self.error_column].is_null()).to_pylist()
        return [still_in and unseen for still_in, unseen in zip(is_kept(table), never, strict=True)]

    def measure(self, table: pa.Table) -> pa.Table:
        """Detects in batches; when a batch fails, photo by photo."""
        rows = table.to_pylist()
        self.calls.asked(self.name, [row["photo_id"] for row in rows])
        results: list[dict[str, Any]] = []
        for start in range(0, len(rows), self._batch):
            results += self._measure_batch(rows[start : start + self._batch])
        return set_columns(table, self.fills, results)

    def _measure_batch(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        photos: list[np.ndarray | None] = []
        errors: list[str] = []
        for row in rows:
            try:
                photos.append(self.pixels.rgb(row))
                errors.append("")
            except Exception as error:
                photos.append(None)
                errors.append(one_line(error))
        readable = [photo for photo in photos if photo is not None]
        try:
            answers = iter(self.backends["by"].detect(readable) if readable else [])
            found = [None if photo is None else next(answers) for photo in photos]
        except PersonaError:
            raise
        except Exception as error:
            if len(rows) > 1:
                return [result for row in rows for result in self._measure_batch([row])]
            found, errors = [None], [one_line(error)]
        results: list[dict[str, Any]] = []
        for photo, people, unread in zip(photos, found, errors, strict=True):
            if photo is None or people is None:
                results.append({"detect_error": unread})
                continue
            try:
                results.append({"found": self._found(photo, people)})
            except PersonaError:
                raise
            except Exception as broken:
                results.append({"detect_error": one_line(broken)})
        return results

    def _found(self, photo: np.ndarray, people: Detections) -> list[dict[str, Any]]:
        """The people of a photo, each as `FOUND`."""
        order = np.lexsort((people.boxes[:, 1], people.boxes[:, 0], -people.scores))
        order = order[people.scores[order] >= self.settings.floor]
        boxes, joints = people.boxes[order], None if people.keypoints is None else people.keypoints[order]
        if joints is None and self.settings.joints is not None and len(boxes):
            joints = self.backends["joints"].joints(photo, boxes)
        return [
            {
                "box": box.tolist(),
                "box_score": float(score),
                "keypoints": None if joints is None else joints[i].reshape(-1).tolist(),
            }
            for i, (box, score) in enumerate(zip(boxes, people.scores[order], strict=True))
        ]

    def people(self, photos: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(photos, people): whom the detector found on photos still in becomes a row each, in their order.

        Photos get `people`, how many were found, in the place of `found`; null where no detector looked, and
        where nobody is looked at any more. People have the columns of `OF_PHOTO`.
        """
        is_seen = pa.array(np.array(is_kept(photos), bool) & np.array(photos["found"].is_valid(), bool))
        counts = pc.if_else(is_seen, pc.list_value_length(photos["found"]), pa.scalar(None, pa.int32()))
        seen = photos.filter(is_seen)
        found = list_array(seen["found"])
        people = seen.select(["source_key", *OF_PHOTO]).take(pc.list_parent_indices(found))
        number = [i for count in pc.list_value_length(found).to_pylist() for i in range(count)]
        ids = map("{}-{}".format, people["photo_id"].to_pylist(), number)
        people = people.add_column(0, "person_id", pa.array(ids, pa.string()))
        people = people.add_column(1, "person_index", pa.array(number, pa.int32()))
        for field, values in zip(found.type.value_type, found.flatten().flatten(), strict=True):
            people = people.append_column(field, values)
        return photos.drop_columns(["found"]).append_column("people", counts), people

    def rule(self, photos: pa.Table, people: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Rules on photos with nobody or a crowd, and on people of photos still in; leaves out the others."""
        checks: dict[str, list[Check]] = {
            key: []
            for key, still_in in zip(photos["source_key"].to_pylist(), is_kept(photos), strict=True)
            if still_in
        }
        people = people.filter(pc.is_in(people["source_key"], pa.array(list(checks), pa.string())))
        seen = [name for name in ("source_key", "box_score", "from_face") if name in people.column_names]
        for person in people.select(seen).to_pylist():
            checks[person["source_key"]].append(self._check(person))
        outcomes: list[Outcome | None] = []
        of_people: list[Outcome] = []
        for photo in photos.select(["source_key", "people", self.error_column]).to_pylist():
            found = checks.get(photo["source_key"])
            if found is None:
                outcomes.append(None)
            elif photo["people"] is None:
                error = photo[self.error_column]
                outcomes.append(failed(NOT_MEASURED) if error is None else failed(ERROR, error))
            else:
                outcomes.append(self._of_photo(found))
                of_people += self._of_people(found)
        stamp = replace(self.stamp, stage=Detected.name)
        return rule_rows(photos, self.stamp, outcomes), rule_rows(people, stamp, of_people)

    def _check(self, person: dict[str, Any]) -> Check:
        """Whether a person is certain enough."""
        return at_least("low_score", person["box_score"], self.settings.min_score)

    def _of_photo(self, people: list[Check]) -> Outcome:
        nobody = Check("no_person", 0.0, self.settings.min_score, False)
        best = max(people, key=lambda check: check.score - check.threshold, default=nobody)
        return judged([replace(best, name="no_person"), self._crowd(people)])

    def _of_people(self, people: list[Check]) -> list[Outcome]:
        crowd = self._crowd(people)
        if crowd.passed:
            return [judged([check]) for check in people]
        return [Outcome(REJECTED, "crowd", crowd.score, crowd.threshold)] * len(people)

    def _crowd(self, people: list[Check]) -> Check:
        return self.check("crowd", sum(check.passed for check in people))
