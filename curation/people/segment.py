"""Stage `segment`: the mask of each person inside the box, as a PNG of the box's size."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.ledger import Check, judged
from curation.models import Model
from curation.people.atr import encode_map
from curation.people.boxes import whole_box
from curation.people.person_stage import ChainContext, PersonStage
from curation.people.protocols import Segmenter
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
    needs: ClassVar[tuple[str, ...]] = ("detect",)

    def __init__(
        self,
        settings: SegmentSettings,
        models: Sequence[Model],
        segmenter: Segmenter,
        chain: ChainContext,
    ) -> None:
        super().__init__(settings, models, chain)
        self._settings = settings
        self._segmenter = segmenter

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """Masks and the share of the box that each covers."""
        photo = self.pixels.rgb(row)
        height, width = photo.shape[:2]
        boxes = np.stack([whole_box(np.array(row["boxes"][i]), width, height) for i in wanted])
        masks = self._segmenter.segment(photo, boxes)
        return [
            {"masks": encode_map(mask.astype(np.uint8) * 255), "mask_shares": float(mask.mean())}
            for mask in masks
        ]

    def decide(self, table: pa.Table) -> pa.Table:
        """Rejects people of whom hardly anything was found in their box."""
        least = self._settings.min_mask_share
        return self.rule(
            table,
            lambda row, i: judged(
                [
                    Check(
                        "small_mask",
                        round(row["mask_shares"][i], 4),
                        least,
                        row["mask_shares"][i] >= least,
                    )
                ]
            ),
        )
