"""Stage `select`: which photos of a group are worth a caption and a place in a shard.

Near copies of one photo teach nothing but copying, and a person with ten thousand photos outweighs all
others. So near copies are left out, then groups and persons are thinned to those photos that differ most.
All of it is a function of the rows: no order of arrival and no random number.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Threshold
from curation.ledger import REJECTED, Outcome, is_kept, kept, rule_rows
from curation.outfits.appearance_judge import similarities
from curation.settings.groups import SelectionSettings
from curation.stage import Stage, set_columns

COLUMNS = ("phash", "keypoints", "appearance")
"""Columns of a person that are read."""
_SEEN = 0.3  # the least score of a joint
_LEAST_JOINTS = 6
_OTHER_SCENE_BITS = 32.0  # by which two photos that have nothing to do with each other differ on average
# Of 1,004 pairs of one person and outfit in three rendered worlds, 1 in 10 of those with another pose, view
# or position of the arms differs by more.
_OTHER_POSE = 0.3
_DIGITS = 4


class Photos:
    """The photos of a group, ready to be compared one with all.

    people  rows with `COLUMNS`: phash a 64-bit number or None, keypoints 51 numbers (x, y in px and score of
            17 joints) or None, appearance as the stage of that name stores it, or None
    """

    def __init__(self, people: Sequence[dict[str, Any]]) -> None:
        self._hashes = np.array([row["phash"] or 0 for row in people], np.uint64)
        self._hashed = np.array([row["phash"] is not None for row in people], bool)
        joints = np.zeros((len(people), 17, 3))
        for place, row in enumerate(people):
            if row["keypoints"] is not None:
                joints[place] = np.reshape(row["keypoints"], (17, 3))
        self._joints, self._seen = joints[..., :2], joints[..., 2] >= _SEEN
        self._appearance = [row["appearance"] for row in people]

    def __len__(self) -> int:
        return len(self._hashes)

    def bits(self, one: int) -> np.ndarray:
        """float64 [n], 0 to 64: bits between the hashes of photo `one` and of each photo; NaN: not known."""
        found = np.bitwise_count(self._hashes ^ self._hashes[one]).astype(np.float64)
        found[~(self._hashed & self._hashed[one])] = np.nan
        return found

    def pose(self, one: int) -> np.ndarray:
        """float64 [n], from 0: how far apart the joints are; NaN where both show fewer than 6 of them."""
        both = self._seen & self._seen[one]
        count = both.sum(axis=1)
        weight = both[..., None] / np.maximum(count, 1)[:, None, None]

        def shaped(points: np.ndarray) -> np.ndarray:
            centred = points - (points * weight).sum(axis=1, keepdims=True)
            size = np.sqrt((centred**2 * weight).sum(axis=(1, 2), keepdims=True))
            return np.asarray(centred / np.maximum(size, 1e-9))

        mine = np.broadcast_to(self._joints[one], self._joints.shape)
        apart = np.sqrt(((shaped(self._joints) - shaped(mine)) ** 2 * weight).sum(axis=(1, 2)))
        return np.where(count >= _LEAST_JOINTS, np.round(apart, _DIGITS), np.nan)

    def colours(self, one: int, other: int) -> float:
        """0 to 1: how alike the stored colours of the clothes are; NaN: not known."""
        return float(similarities([self._appearance[one], self._appearance[other]])[0, 1])

    def diversity(self, one: int) -> np.ndarray:
        """float64 [n], 0 to 1: the mean of pose and scene, each 1 where it is as different as can be told.

        What is not known counts as neither: the other one stands alone; 0.5 where both are unknown.
        """
        parts = [
            np.minimum(self.pose(one) / _OTHER_POSE, 1),
            np.minimum(self.bits(one) / _OTHER_SCENE_BITS, 1),
        ]
        stacked = np.stack(parts)
        known = ~np.isnan(stacked)
        mean = np.where(known, stacked, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return np.round(np.where(known.any(axis=0), mean, 0.5), _DIGITS)


_READ = ("group", "identity", "person_id", "box", *COLUMNS)


class Select(Stage):
    """Rules on every photo of the groups of a table, which holds whole identities.

    Fills `diversity`: float64, 0 to 1, the mean over the other photos of the group that stay, of how much
    this one differs from them (curation/captions/select.py); null for photos that are left out.
    """

    name: ClassVar[str] = "select"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = SelectionSettings
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("near_copy", "selection.near_copy_bits", "above", "bits between two photos of a group"),
        Threshold("same_shot", "selection.near_copy_colours", "below", "likeness of the clothes' colours"),
        Threshold("group_cap", "selection.max_group_photos", "at most", "photos of the group"),
        Threshold("person_cap", "selection.max_person_photos", "at most", "photos of the person"),
        Threshold("too_few_photos", "outfits.min_photos", "at least", "photos of the group, copies aside"),
    )
    fills: ClassVar[pa.Schema] = pa.schema([("diversity", pa.float64())])

    def __init__(self, settings: SelectionSettings, min_photos: int) -> None:
        super().__init__(settings)
        self._min_photos = min_photos

    def decide(self, table: pa.Table) -> pa.Table:
        """The table with a decision for every row still in, and `diversity`."""
        rows = table.select([*_READ]).to_pylist()
        groups: dict[str, list[int]] = defaultdict(list)
        for place, still_in in enumerate(is_kept(table)):
            if still_in:
                groups[rows[place]["group"]].append(place)
        outcomes: list[Outcome | None] = [None] * len(rows)
        chosen: dict[str, _Chosen] = {}
        for key in sorted(groups):
            places = sorted(groups[key], key=lambda place: str(rows[place]["person_id"]))
            chosen[key] = self._of_group([rows[place] for place in places], places, outcomes)
        self._cap_persons(chosen, rows, outcomes)
        filled: list[dict[str, Any]] = [{} for _ in rows]
        for group in chosen.values():
            for place, value in group.diversity(self._min_photos, outcomes):
                filled[place]["diversity"] = value
        return rule_rows(set_columns(table, self.fills, filled), self.stamp, outcomes)

    def _of_group(
        self, people: list[dict[str, Any]], places: list[int], outcomes: list[Outcome | None]
    ) -> "_Chosen":
        photos = Photos(people)
        area = [(row["box"][2] - row["box"][0]) * (row["box"][3] - row["box"][1]) for row in people]
        # The largest stays of those that are copies of each other, as in the search for copies.
        order = sorted(range(len(people)), key=lambda i: (-round(area[i]), i))
        alone = order
        if self.settings.near_copies:
            alone = self._without_copies(photos, order, people, places, outcomes)
        most = self.settings.max_group_photos
        ranked = _most_different(photos, alone, most)
        for one in alone:
            outcomes[places[one]] = Outcome(REJECTED, "group_cap", len(alone), most)
        for one in ranked:
            outcomes[places[one]] = kept()
        return _Chosen(photos, places, ranked)

    def _without_copies(
        self,
        photos: Photos,
        order: list[int],
        people: list[dict[str, Any]],
        places: list[int],
        outcomes: list[Outcome | None],
    ) -> list[int]:
        """The photos that stay, in their order; the others get their outcome."""
        settings = self.settings
        stay: list[int] = []
        taken = np.zeros(len(photos), bool)
        for one in order:
            if taken[one]:
                continue
            stay.append(one)
            taken[one] = True
            bits, pose = photos.bits(one), photos.pose(one)
            still = np.isnan(pose) | (pose <= settings.near_copy_pose)
            by_hash = ~taken & still & (bits <= settings.near_copy_bits)
            for other in np.flatnonzero(by_hash).tolist():
                detail = f"of {people[one]['person_id']}{_joints(pose[other])}"
                outcomes[places[other]] = Outcome(
                    REJECTED, "near_copy", float(bits[other]), settings.near_copy_bits, detail
                )
            taken |= by_hash
            # Another cut of one shot has another hash. Without joints nothing tells it from a second shot.
            for other in np.flatnonzero(~taken & (pose <= settings.near_copy_pose)).tolist():
                colours = photos.colours(one, other)
                if colours >= settings.near_copy_colours:
                    taken[other] = True
                    detail = f"of {people[one]['person_id']}{_joints(pose[other])}"
                    outcomes[places[other]] = Outcome(
                        REJECTED, "same_shot", colours, settings.near_copy_colours, detail
                    )
        return stay

    def _cap_persons(
        self, chosen: dict[str, "_Chosen"], rows: list[dict[str, Any]], outcomes: list[Outcome | None]
    ) -> None:
        """Groups too small by now are given up; then each person's photos are counted."""
        least, most = self._min_photos, self.settings.max_person_photos
        of_person: dict[str, list[_Chosen]] = defaultdict(list)
        for group in chosen.values():
            if len(group.ranked) < least:
                for one in group.ranked:
                    outcomes[group.places[one]] = Outcome(
                        REJECTED,
                        "too_few_photos",
                        len(group.ranked),
                        least,
                        "others of the group are near copies",
                    )
                group.ranked = []
            else:
                of_person[rows[group.places[0]]["identity"]].append(group)
        for groups in of_person.values():
            if most is not None and sum(len(group.ranked) for group in groups) > most:
                _thin(groups, least, most, outcomes)


class _Chosen:
    """The photos of a group that stay, the most different first: places in `photos`."""

    def __init__(self, photos: Photos, places: list[int], ranked: list[int]) -> None:
        self.photos, self.places, self.ranked = photos, places, ranked

    def diversity(self, least: int, outcomes: list[Outcome | None]) -> list[tuple[int, float]]:
        """(place in the table, mean difference to the others that stay)."""
        if len(self.ranked) < max(least, 2):
            return []
        others = len(self.ranked) - 1
        found = []
        for one in self.ranked:
            apart = self.photos.diversity(one)
            found.append((self.places[one], round(float(apart[self.ranked].sum() - apart[one]) / others, 4)))
        return found


def _thin(groups: list[_Chosen], least: int, most: int, outcomes: list[Outcome | None]) -> None:
    """Leaves the person `most` photos: pairs of as many groups as go, the largest first, then one by one."""
    groups = sorted(groups, key=lambda group: -len(group.ranked))  # stable: equal ones stay in order of key
    stay = [0] * len(groups)
    for i in range(len(groups)):
        if sum(stay) + least <= most:
            stay[i] = least
    while sum(stay) < most:
        open_ = [i for i, group in enumerate(groups) if 0 < stay[i] < len(group.ranked)]
        if not open_:
            break
        for i in open_[: most - sum(stay)]:
            stay[i] += 1
    total = sum(len(group.ranked) for group in groups)
    for group, count in zip(groups, stay, strict=True):
        for one in group.ranked[count:]:
            outcomes[group.places[one]] = Outcome(REJECTED, "person_cap", total, most)
        group.ranked = group.ranked[:count]


def _most_different(photos: Photos, order: list[int], most: int) -> list[int]:
    """`most` at most: the first of `order`, then always what differs most from the nearest before it."""
    ranked = order[:1]
    rest = np.array(sorted(order[1:]), np.int64)
    nearest = photos.diversity(order[0]) if order else np.zeros(0)
    while len(rest) and len(ranked) < most:
        best = int(rest[int(np.argmax(nearest[rest]))])
        ranked.append(best)
        rest = rest[rest != best]
        nearest = np.minimum(nearest, photos.diversity(best))
    return ranked


def _joints(apart: float) -> str:
    return "" if np.isnan(apart) else f", joints {apart:g} apart"
