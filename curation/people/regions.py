"""Stage `regions`: ATR labels of each person's pixels, and which of the five regions are visible."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Threshold
from curation.ledger import Check
from curation.people.atr import REGIONS, decode_map, encode_map, region_shares
from curation.people.boxes import whole_box
from curation.people.detect import Detect
from curation.people.face import FaceStage
from curation.people.person_stage import PersonStage
from curation.people.protocols import PersonView
from curation.people.segment import Segment
from curation.settings.people import RegionsSettings


class Regions(PersonStage):
    """`labels` are PNG maps of the box's size, `region_shares` shares of the mask in REGIONS' order."""

    name: ClassVar[str] = "regions"
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("labels", pa.list_(pa.binary())),
            ("region_shares", pa.list_(pa.list_(pa.float32()))),
            ("regions_error", pa.string()),
        ]
    )
    needs: ClassVar[tuple[str, ...]] = (Detect.name, FaceStage.name, Segment.name)
    requires: ClassVar[str | None] = "masks"
    settings_type: ClassVar[Any] = RegionsSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("few_regions", "people.regions.min_regions", "at least", "regions that are visible, of 5"),
    )
    moves: ClassVar[tuple[str, ...]] = ("people.regions.min_region_share",)

    def measure_people(self, row: dict[str, Any], wanted: list[int]) -> list[dict[str, Any]]:
        """Parses every wanted person that has a mask."""
        photo = self.pixels.rgb(row)
        views = [person_view(row, i, photo.shape[1], photo.shape[0]) for i in wanted]
        labels = self.backends["by"].parse(photo, views)
        return [
            {
                "labels": encode_map(found * (view.mask > 0)),
                "region_shares": region_shares(found, view.mask),
            }
            for found, view in zip(labels, views, strict=True)
        ]

    def decide(self, table: pa.Table) -> pa.Table:
        """Rejects people of whom too few regions are visible; fills `regions` for all."""
        share = self.settings.min_region_share
        names = list(REGIONS)
        visible = [
            [
                None if shares is None else [n for n, s in zip(names, shares, strict=True) if s >= share]
                for shares in people or []
            ]
            for people in table["region_shares"].to_pylist()
        ]
        column = pa.array(visible, pa.list_(pa.list_(pa.string())))
        table = table.append_column("regions", column)
        return super().decide(table)

    def checks(self, row: dict[str, Any], i: int) -> list[Check]:
        """How many regions are visible."""
        return [self.check("few_regions", len(row["regions"][i]))]


def person_view(row: dict[str, Any], i: int, width: int, height: int) -> PersonView:
    """What is known of person i of a photo row."""
    keypoints = row["keypoints"][i]
    face = row["faces"][i] if row["faces"] else None
    return PersonView(
        box=whole_box(np.array(row["boxes"][i]), width, height),
        mask=decode_map(row["masks"][i]),
        keypoints=None if keypoints is None else np.array(keypoints).reshape(17, 3),
        face_box=np.array(face["box"]) if face and face["found"] else None,
    )
