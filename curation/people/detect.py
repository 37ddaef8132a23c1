"""Stage `detect`: the people of each photo, and `detected`: whether each is certain enough."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.columns import put_column
from curation.declared import Declared, Threshold
from curation.errors import PersonaError, one_line
from curation.ledger import (
    DECISION,
    ERROR,
    KEPT,
    NOT_MEASURED,
    REJECTED,
    Check,
    Outcome,
    at_least,
    failed,
    is_kept,
    judged,
    rule_people,
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
        Threshold("crowd", "people.detect.max_people", "at most", "people on the photo, per person"),
    )


class Detect(ChainStage):
    """Finds people. person_id = photo_id + "-" + place in the list, best score first."""

    name: ClassVar[str] = "detect"
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = DetectSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("no_person", "people.detect.min_score", "at least", "best detection of the photo"),
        Threshold("crowd", "people.detect.max_people", "at most", "people on the photo"),
    )
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("boxes", pa.list_(pa.list_(pa.float32()))),
            ("box_scores", pa.list_(pa.float32())),
            ("keypoints", pa.list_(pa.list_(pa.float32()))),
            ("detect_error", pa.string()),
        ]
    )

    def __init__(self, settings: DetectSettings, chain: ChainContext, models: Models | None = None) -> None:
        super().__init__(settings, chain, models)
        self._batch = getattr(settings.by, "batch_size", 1)

    def missing(self, table: pa.Table) -> list[bool]:
        """Photos still in that no detector has seen."""
        rows = table.select(["boxes", "detect_error"]).to_pylist()
        return [
            still_in and row["boxes"] is None and row["detect_error"] is None
            for row, still_in in zip(rows, is_kept(table), strict=True)
        ]

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
                results.append(self._columns(photo, people))
            except PersonaError:
                raise
            except Exception as broken:
                results.append({"detect_error": one_line(broken)})
        return results

    def _columns(self, photo: np.ndarray, people: Detections) -> dict[str, Any]:
        order = np.lexsort((people.boxes[:, 1], people.boxes[:, 0], -people.scores))
        order = order[people.scores[order] >= self.settings.floor]
        boxes = people.boxes[order]
        keypoints = None if people.keypoints is None else people.keypoints[order]
        if keypoints is None and self.settings.joints is not None and len(boxes):
            keypoints = self.backends["joints"].joints(photo, boxes)
        return {
            "boxes": boxes.tolist(),
            "box_scores": people.scores[order].tolist(),
            "keypoints": [None] * len(boxes)
            if keypoints is None
            else [joints.reshape(-1).tolist() for joints in keypoints],
        }

    def decide(self, table: pa.Table) -> pa.Table:
        """Names the people, rules on each, and on photos with none or a crowd."""
        wanted = self.settings
        photo_outcomes: list[Outcome | None] = []
        people_outcomes: list[list[Outcome | None]] = []
        ids: list[list[str]] = []
        columns = ["photo_id", *self.fills.names]
        columns = [name for name in columns if name not in ("boxes", "keypoints")]
        for row, still_in in zip(table.select(columns).to_pylist(), is_kept(table), strict=True):
            people = len(row["box_scores"] or []) if still_in else 0
            ids.append([f"{row['photo_id']}-{i}" for i in range(people)])
            unknown = _unknown(row) if still_in else None
            if unknown is not None or not still_in:
                photo_outcomes.append(unknown)
                people_outcomes.append([])
                continue
            checks = [self._check(row, i) for i in range(people)]
            certain = sum(check.passed for check in checks)
            nobody = Check("no_person", 0.0, wanted.min_score, False)
            best = max(checks, key=lambda check: check.score - check.threshold, default=nobody)
            crowd = self.check("crowd", certain)
            someone = Check("no_person", best.score, best.threshold, certain > 0)
            photo_outcomes.append(judged([someone, crowd]))
            if crowd.passed:
                ruled = [judged([check]) for check in checks]
            else:
                ruled = [Outcome(REJECTED, "crowd", crowd.score, crowd.threshold) for _ in checks]
            people_outcomes.append(list(ruled))
        counts = [len(found) for found in ids]
        table = put_column(table, "person_ids", pa.array(ids, pa.list_(pa.string())))
        verdicts = pa.array([[KEPT] * n for n in counts], pa.list_(pa.string()))
        decisions = pa.array([[[] for _ in range(n)] for n in counts], pa.list_(pa.list_(DECISION)))
        table = put_column(table, "person_verdicts", verdicts)
        table = put_column(table, "person_decisions", decisions)
        table = rule_rows(table, self.stamp, photo_outcomes)
        return rule_people(table, replace(self.stamp, stage=Detected.name), people_outcomes)

    def _check(self, row: dict[str, Any], i: int) -> Check:
        """Whether person i of a photo is certain enough."""
        return at_least("low_score", row["box_scores"][i], self.settings.min_score)


def _unknown(row: dict[str, Any]) -> Outcome | None:
    """The failure of a photo on which the detector broke down, or that it never saw; None for the others."""
    if row["detect_error"] is not None:
        return failed(ERROR, row["detect_error"])
    return failed(NOT_MEASURED) if row["box_scores"] is None else None
