"""Stage `full_body`: how much of a person is on the photo. Thresholds on stored boxes and joints."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Number, Reason, Threshold
from curation.ledger import Check, at_least, is_kept
from curation.people.boxes import borders_touched, whole_box
from curation.people.chain import ChainContext
from curation.people.person_stage import Person, PersonStage
from curation.settings.people import FullBodyRules, FullBodySettings

# COCO's order of joints.
_HEAD, _SHOULDERS, _HIPS, _KNEES_ANKLES = (0, 1, 2, 3, 4), (5, 6), (11, 12), (13, 14, 15, 16)
_LARGEST_OTHER = "largest_other"


class FullBody(PersonStage):
    """Rules by the preset (or own thresholds) of FullBodySettings; the reason `cropped` comes first."""

    name: ClassVar[str] = "full_body"
    settings_type: ClassVar[Any] = FullBodySettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("from_face", "nothing below the shoulders was ever seen", "people.full_body"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold(
            "cropped",
            "people.full_body.min_face_heights",
            "at least",
            "parts of the body seen (of 4), or heights of the face",
        ),
        Threshold(
            "cropped_by_borders",
            "people.full_body.max_cut_borders",
            "at most",
            "borders of the photo that the box touches",
        ),
        Threshold("low_score", "people.full_body.min_score", "at least", "detection of the person"),
        Threshold(
            "too_small", "people.full_body.min_box_px", "at least", "longer side of the box", unit="px"
        ),
        Threshold("small_share", "people.full_body.min_share", "at least", "box as a share of the photo"),
        Threshold("large_share", "people.full_body.max_share", "at most", "box as a share of the photo"),
        Threshold(
            "not_dominant",
            "people.full_body.min_dominance",
            "at least",
            "box / box of the largest other person",
        ),
    )
    numbers: ClassVar[Mapping[str, Number]] = {
        "from_face": Number("at least", "parts of the body seen below the shoulders")
    }
    moves: ClassVar[tuple[str, ...]] = ("people.full_body.min_joint_score",)

    def __init__(self, settings: FullBodySettings, chain: ChainContext) -> None:
        super().__init__(settings.resolved(), chain)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on everyone still in, each beside the largest of the others still in on the photo."""
        largest = pa.array(_largest_others(table), pa.float64())
        return super().decide(table.append_column(_LARGEST_OTHER, largest)).drop_columns([_LARGEST_OTHER])

    def checks(self, row: Person) -> list[Check]:
        """All measured numbers of one person beside their settings."""
        width, height = row["width"], row["height"]
        box = whole_box(np.array(row["box"]), width, height)
        sides = box[2:] - box[:2]
        area = float(sides.prod())
        share = round(area / (width * height), 4)
        dominance = min(area / max(row[_LARGEST_OTHER], 1.0), 1e6)
        return [
            *self._extent(row),
            self.check("cropped_by_borders", borders_touched(box, width, height)),
            self.check("low_score", row["box_score"]),
            self.check("too_small", int(sides.max())),
            self.check("small_share", share),
            self.check("large_share", share),
            self.check("not_dominant", round(dominance, 4)),
        ]

    def _extent(self, row: Person) -> list[Check]:
        """Head to knees: by joints where there are any, otherwise in heights of the face."""
        wanted: FullBodyRules = self.settings
        if row.get("from_face") is not None:
            # The box is a guess from the face: nothing below the shoulders was ever seen.
            wants_legs = wanted.joints or wanted.min_face_heights > 0
            return [Check("from_face", 0, 1, False)] if wants_legs else []
        if row["keypoints"] is not None:
            if not wanted.joints:
                return []
            scores = np.array(row["keypoints"]).reshape(17, 3)[:, 2] >= wanted.min_joint_score
            parts = [
                bool(scores[list(_HEAD)].any()),
                bool(scores[list(_SHOULDERS)].all()),
                bool(scores[list(_HIPS)].all()),
                bool(scores[list(_KNEES_ANKLES)].any()),
            ]
            return [at_least("cropped", sum(parts), len(parts))]
        face, box = row["face"], row["box"]
        if face is None or not face["found"]:
            return []
        face_px = max(face["box"][3] - face["box"][1], 1.0)
        return [self.check("cropped", round((box[3] - box[1]) / face_px, 3))]


def _largest_others(people: pa.Table) -> list[float]:
    """For each person the area, px², of the largest box of the others still in on the photo; 0: of nobody."""
    rows = people.select(["source_key", "box"]).to_pylist()
    areas = [_area(row["box"]) if kept else 0.0 for row, kept in zip(rows, is_kept(people), strict=True)]
    of_photo: dict[str, list[float]] = {}
    for row, area in zip(rows, areas, strict=True):
        of_photo.setdefault(row["source_key"], [0.0]).append(area)
    two = {key: sorted(found)[-2:] for key, found in of_photo.items()}
    return [
        two[row["source_key"]][0 if area == two[row["source_key"]][1] else 1]
        for row, area in zip(rows, areas, strict=True)
    ]


def _area(box: list[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
