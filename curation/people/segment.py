"""Stage `segment`: the mask of each person inside the box, as a PNG of the box's size."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Threshold
from curation.ledger import Check
from curation.people.atr import encode_map
from curation.people.boxes import whole_box
from curation.people.detect import Detect
from curation.people.person_stage import PersonStage
from curation.settings.people import SegmentSettings


class Segment(PersonStage):
    """All wanted people of a photo are masked in one call."""

    name: ClassVar[str] = "segment"
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("masks", pa.list_(pa.binary())),
            ("mask_shares", pa.list_(pa.float32())),
            ("segment_error", pa.string()),
        ]
    )
    needs: ClassVar[tuple[str, ...]] = (Detect.name,)
    settings_type: ClassVar[Any] = SegmentSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("small_mask", "people.segment.min_mask_share", "at least", "mask as a share of the box"),
    )

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """Masks and the share of the box that each covers."""
        photo = self.pixels.rgb(row)
        height, width = photo.shape[:2]
        boxes = np.stack([whole_box(np.array(row["boxes"][i]), width, height) for i in wanted])
        masks = self.backends["by"].segment(photo, boxes)
        return [
            {"masks": encode_map(mask.astype(np.uint8) * 255), "mask_shares": float(mask.mean())}
            for mask in masks
        ]

    def checks(self, row: dict[str, Any], i: int) -> list[Check]:
        """The share as it is stored beside its setting; four digits of it are recorded."""
        share = row["mask_shares"][i]
        return [replace(self.check("small_mask", share), score=round(share, 4))]
