"""Stage `regions`: ATR labels of each person's pixels, and which of the five regions are visible."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.columns import put_column
from curation.declared import Threshold
from curation.ledger import Check
from curation.people.atr import REGIONS, decode_map, encode_map, region_shares
from curation.people.boxes import whole_box
from curation.people.detect import Detect
from curation.people.face import FaceStage
from curation.people.person_stage import Measured, People, Person, PersonStage
from curation.people.protocols import PersonView
from curation.people.segment import Segment
from curation.settings.people import RegionsSettings


class Regions(PersonStage):
    """`labels` are PNG maps of the box's size, `region_shares` shares of the mask in REGIONS' order."""

    name: ClassVar[str] = "regions"
    fills: ClassVar[pa.Schema] = pa.schema(
        [
            ("region_shares", pa.list_(pa.float32())),
            ("labels", pa.binary()),
            ("regions_error", pa.string()),
        ]
    )
    needs: ClassVar[tuple[str, ...]] = (Detect.name, FaceStage.name, Segment.name)
    requires: ClassVar[str | None] = "mask"
    settings_type: ClassVar[Any] = RegionsSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("few_regions", "people.regions.min_regions", "at least", "visible regions"),
    )
    moves: ClassVar[tuple[str, ...]] = ("people.regions.min_region_share",)

    def measure_people(self, photo: np.ndarray, wanted: People, everyone: People) -> Measured:
        """Parses every wanted person."""
        views = [person_view(person, photo.shape[1], photo.shape[0]) for person in wanted]
        labels = self.backends["by"].parse(photo, views)
        return [
            {
                "region_shares": region_shares(found, view.mask),
                "labels": encode_map(found * (view.mask > 0)),
            }
            for found, view in zip(labels, views, strict=True)
        ]

    def decide(self, table: pa.Table) -> pa.Table:
        """Rejects people of whom too few regions are visible; fills `regions`, their names, for all."""
        visible = [
            None
            if shares is None
            else [name for name, share in zip(REGIONS, shares, strict=True) if self._is_seen(share)]
            for shares in table["region_shares"].to_pylist()
        ]
        return super().decide(put_column(table, "regions", pa.array(visible, pa.list_(pa.string()))))

    def _is_seen(self, share: float) -> bool:
        return bool(share >= self.settings.min_region_share)

    def checks(self, row: Person) -> list[Check]:
        """How many regions are visible."""
        return [self.check("few_regions", len(row["regions"]))]


def person_view(person: Person, width: int, height: int) -> PersonView:
    """What is known of a person on a photo of this size."""
    keypoints, face = person["keypoints"], person["face"]
    return PersonView(
        box=whole_box(np.array(person["box"]), width, height),
        mask=decode_map(person["mask"]),
        keypoints=None if keypoints is None else np.array(keypoints).reshape(17, 3),
        face_box=np.array(face["box"]) if face and face["found"] else None,
    )
