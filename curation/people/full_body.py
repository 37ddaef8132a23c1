"""Stage `full_body`: how much of a person is on the photo. Thresholds on stored boxes and joints."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.ledger import KEPT, Check, at_least, at_most, judged
from curation.people.boxes import borders_touched, whole_box
from curation.people.person_stage import ChainContext, PersonStage
from curation.settings.people import FullBodySettings

# COCO's order of joints.
_HEAD, _SHOULDERS, _HIPS, _KNEES_ANKLES = (0, 1, 2, 3, 4), (5, 6), (11, 12), (13, 14, 15, 16)


class FullBody(PersonStage):
    """Rules by the preset (or own thresholds) of FullBodySettings; the reason `cropped` comes first."""

    name: ClassVar[str] = "full_body"

    def __init__(self, settings: FullBodySettings, chain: ChainContext) -> None:
        super().__init__(settings.resolved(), (), chain)
        self._wanted = settings.resolved()

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every person still in."""
        return self.rule(table, lambda row, i: judged(self.checks(row, i)))

    def checks(self, row: dict[str, Any], i: int) -> list[Check]:
        """All measured numbers of one person beside their thresholds."""
        wanted = self._wanted
        assert wanted.min_score is not None
        assert wanted.min_box_px is not None
        assert wanted.min_share is not None
        assert wanted.max_share is not None
        assert wanted.max_cut_borders is not None
        assert wanted.min_dominance is not None
        width, height = row["width"], row["height"]
        box = whole_box(np.array(row["boxes"][i]), width, height)
        sides = box[2:] - box[:2]
        area = float(sides.prod())
        others = [
            _area(np.array(other))
            for j, other in enumerate(row["boxes"])
            if j != i and row["person_verdicts"][j] == KEPT
        ]
        return [
            *self._extent(row, i),
            at_most("cropped_by_borders", borders_touched(box, width, height), wanted.max_cut_borders),
            at_least("low_score", row["box_scores"][i], wanted.min_score),
            at_least("too_small", int(sides.max()), wanted.min_box_px),
            at_least("small_share", round(area / (width * height), 4), wanted.min_share),
            at_most("large_share", round(area / (width * height), 4), wanted.max_share),
            at_least(
                "not_dominant",
                round(min(area / max(max(others, default=0.0), 1.0), 1e6), 4),
                wanted.min_dominance,
            ),
        ]

    def _extent(self, row: dict[str, Any], i: int) -> list[Check]:
        """Head to knees: by joints where there are any, otherwise in heights of the face."""
        wanted = self._wanted
        assert wanted.min_joint_score is not None
        assert wanted.min_face_heights is not None
        if (row.get("from_face") or [None] * (i + 1))[i] is not None:
            # The box is a guess from the face: nothing below the shoulders was ever seen.
            whole = wanted.joints or wanted.min_face_heights > 0
            return [Check("from_face", 0, 1, False)] if whole else []
        joints = (row["keypoints"] or [None] * (i + 1))[i]
        if joints is not None:
            if not wanted.joints:
                return []
            scores = np.array(joints).reshape(17, 3)[:, 2] >= wanted.min_joint_score
            parts = [
                bool(scores[list(_HEAD)].any()),
                bool(scores[list(_SHOULDERS)].all()),
                bool(scores[list(_HIPS)].all()),
                bool(scores[list(_KNEES_ANKLES)].any()),
            ]
            return [at_least("cropped", sum(parts), len(parts))]
        face = (row["faces"] or [None] * (i + 1))[i]
        if face is None or not face["found"]:
            return []
        box = row["boxes"][i]
        face_px = max(face["box"][3] - face["box"][1], 1.0)
        return [at_least("cropped", round((box[3] - box[1]) / face_px, 3), wanted.min_face_heights)]


def _area(box: np.ndarray) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))
