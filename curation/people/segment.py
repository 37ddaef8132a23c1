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
from curation.people.person_stage import Measured, People, Person, PersonStage
from curation.settings.people import SegmentSettings


class Segment(PersonStage):
    """All wanted people of a photo are masked in one call."""

    name: ClassVar[str] = "segment"
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("mask_share", pa.float32()),
            ("mask", pa.binary()),
            ("segment_error", pa.string()),
        ]
    )
    needs: ClassVar[tuple[str, ...]] = (Detect.name,)
    settings_type: ClassVar[Any] = SegmentSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("small_mask", "people.segment.min_mask_share", "at least", "mask as a share of the box"),
    )

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """Masks and the share of the box that each covers."""
        height, width = photo.shape[:2]
        boxes = np.stack([whole_box(np.array(person["box"]), width, height) for person in wanted])
        masks = self.backends["by"].segment(photo, boxes)
        return [
            {"mask_share": float(mask.mean()), "mask": encode_map(mask.astype(np.uint8) * 255)}
            for mask in masks
        ]

    def checks(self, row: Person) -> list[Check]:
        """The share as it is stored beside its setting; four digits of it are recorded."""
        share = row["mask_share"]
        return [replace(self.check("small_mask", share), score=round(share, 4))]
