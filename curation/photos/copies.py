"""Stage `copies`: photos that another one of the collection stands for, and the search for them.

Copies are found by content, then by perceptual hash. Both answers depend on the set of photos alone, not on
their order: among equal bytes the first source_key stays (the others point at it, also where it is itself a
near copy); among near copies the largest stays, and every other one is within the distance of the one that it
points at.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.declared import Reason, Threshold
from curation.ledger import REJECTED, Outcome, is_kept, kept, rule_rows
from curation.photos.perceptual_hash import pairs_within
from curation.settings.photos import DuplicateSettings
from curation.stage import Stage


class Copies(Stage):
    """Stage `copies`: rejects what another photo stands for, as `exact_copy` or `near_copy`."""

    name: ClassVar[str] = "copies"
    unit: ClassVar[str] = "photo"
    fills: ClassVar[pa.Schema] = pa.schema(
        [("copy_of", pa.string()), ("copy_exact", pa.bool_()), ("copy_bits", pa.int16())]
    )
    settings_type: ClassVar[Any] = DuplicateSettings
    reasons: ClassVar[tuple[Reason, ...]] = (
        Reason("exact_copy", "another photo has the same bytes; the detail names it"),
    )
    thresholds: ClassVar[tuple[Threshold, ...]] = (
        Threshold("near_copy", "photos.duplicates.max_bits", "above", "bits between a copy and its original"),
    )

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules by the columns of `fills`."""
        rows = table.select([*self.fills.names, "copy_key"]).to_pylist()
        outcomes = [
            self._rule(row) if still_in else None for row, still_in in zip(rows, is_kept(table), strict=True)
        ]
        return rule_rows(table, self.stamp, outcomes)

    def _rule(self, row: dict[str, Any]) -> Outcome:
        if row["copy_of"] is None:
            return kept()
        detail = f"of {row['copy_of']} ({row['copy_key']})"
        if row["copy_exact"]:
            return Outcome(REJECTED, "exact_copy", detail=detail)
        return Outcome(REJECTED, "near_copy", row["copy_bits"], self.settings.max_bits, detail)


EXACT = 1
NEAR = 2


@dataclass(frozen=True)
class FoundCopies:
    """Per photo: kind (0 none, EXACT, NEAR), the row it is a copy of, bits between the two."""

    kind: np.ndarray
    original: np.ndarray
    bits: np.ndarray


def find_copies(
    photo_ids: np.ndarray,
    hashes: np.ndarray,
    pixels: np.ndarray,
    n_bytes: np.ndarray,
    max_bits: int | None,
) -> FoundCopies:
    """Copies among n photos that are in the order of their source_keys.

    photo_ids  [n] void of 32 bytes: sha256
    hashes     [n] uint64 perceptual hashes
    pixels     [n] width × height
    n_bytes    [n] encoded size, second after pixels when the largest is chosen
    max_bits   Hamming distance of near copies; None looks for exact ones only
    """
    count = len(photo_ids)
    kind = np.zeros(count, np.int8)
    original = np.arange(count, dtype=np.int64)
    bits = np.zeros(count, np.int16)
    if count == 0:
        return FoundCopies(kind, original, bits)
    _, first, which = np.unique(photo_ids, return_index=True, return_inverse=True)
    original = first[which].astype(np.int64)
    kind[original != np.arange(count)] = EXACT
    if max_bits is not None:
        _find_near(photo_ids, hashes, pixels, n_bytes, max_bits, np.sort(first), kind, original, bits)
    return FoundCopies(kind, original, bits)


def _find_near(
    photo_ids: np.ndarray,
    hashes: np.ndarray,
    pixels: np.ndarray,
    n_bytes: np.ndarray,
    max_bits: int,
    alive: np.ndarray,
    kind: np.ndarray,
    original: np.ndarray,
    bits: np.ndarray,
) -> None:
    # Photos with one hash become one node first: a million blank frames are no million pairs.
    values, node = np.unique(hashes[alive], return_inverse=True)
    linked: dict[int, set[int]] = defaultdict(set)
    for left, right in pairs_within(values, max_bits):
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            linked[a].add(b)
            linked[b].add(a)
    shared = np.flatnonzero(np.bincount(node, minlength=len(values)) > 1)
    nodes = np.union1d(np.fromiter(linked, np.int64, len(linked)), shared)
    if len(nodes) == 0:
        return
    busy = np.flatnonzero(np.isin(node, nodes))
    members: dict[int, list[int]] = defaultdict(list)
    for position in busy.tolist():
        members[int(node[position])].append(int(alive[position]))

    def size(row: int) -> tuple[int, int, bytes]:
        return (-int(pixels[row]), -int(n_bytes[row]), photo_ids[row].tobytes())

    taken: set[int] = set()
    for row, own in sorted(
        ((int(alive[p]), int(node[p])) for p in busy.tolist()), key=lambda item: size(item[0])
    ):
        if row in taken:
            continue
        taken.add(row)
        for near in sorted({own, *linked.get(own, ())}):
            distance = int(np.bitwise_count(values[own] ^ values[near]))
            for copy in members[near]:
                if copy not in taken:
                    taken.add(copy)
                    kind[copy], original[copy], bits[copy] = NEAR, row, distance
