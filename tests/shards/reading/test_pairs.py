"""Pairs of photos of a group: drawn by seed, epoch and key alone, evenly, out of those that will do."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import json_bytes
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.pairs import Pair, Pairs, draw_pair
from shards.reading.steps import Position
from tests.drawn_sources import AsList, read_by_ranks


@given(
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
    key=st.text(min_size=1),
    photos=st.lists(st.integers(0, 999), min_size=2, max_size=30, unique=True),
)
def test_a_pair_is_two_different_photos_and_always_the_same(
    seed: int, epoch: int, key: str, photos: list[int]
) -> None:
    reference, target = draw_pair(seed, epoch, key, photos)
    assert reference != target
    assert {reference, target} <= set(photos)
    assert draw_pair(seed, epoch, key, photos) == (reference, target)


def test_all_ordered_pairs_are_equally_likely() -> None:
    draws = 12_000
    seen = Counter(draw_pair(3, epoch, "b7107ebf3d24952e-a", range(4)) for epoch in range(draws))
    assert len(seen) == 12
    # Four standard deviations of a binomial draw.
    assert max(abs(n - draws / 12) for n in seen.values()) < 4 * np.sqrt(draws / 12)


def test_groups_draw_independently_of_each_other() -> None:
    pairs = [draw_pair(1, 0, f"k{n}", range(3)) for n in range(3000)]
    both = Counter(pairwise(pairs))
    assert len(both) == 36
    assert max(both.values()) < 2 * 3000 / 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """60 groups of 1 to 5 photos; every second photo shows no shoes."""
    path = tmp_path_factory.mktemp("pairs")
    with DatasetWriter(str(path), max_samples=16) as writer:
        for group in range(60):
            members = {"json": json_bytes({"photos": 1 + group % 5})}
            for photo in range(1 + group % 5):
                record = {
                    "width": 8,
                    "height": 8,
                    "regions": ["head", "torso"] + ["shoes"] * (photo % 2 == 0),
                    "caption": None,
                }
                members[f"{photo:03d}.jpg"] = b"pixels of %d.%d" % (group, photo)
                members[f"{photo:03d}.regions.png"] = b"labels of %d.%d" % (group, photo)
                members[f"{photo:03d}.json"] = json_bytes(record)
            writer.add(f"g{group:03d}", members)
        writer.close("pairs", {})
    return DatasetFolder(str(path))


def test_only_the_members_of_the_two_photos_are_read(folder: DatasetFolder) -> None:
    pair = Pairs(folder).read(3)
    assert isinstance(pair, Pair)
    stems = {f"{pair.reference:03d}", f"{pair.target:03d}"}
    assert set(pair.members) == {
        f"{stem}.{kind}" for stem in stems for kind in ("jpg", "regions.png", "json")
    }
    assert pair.members[f"{pair.target:03d}.jpg"] == b"pixels of 3.%d" % pair.target


def test_photos_without_a_region_that_is_asked_for_are_not_drawn(folder: DatasetFolder) -> None:
    pairs = Pairs(folder, regions=["head", "shoes"])
    for epoch in range(20):
        pair = pairs.epoch(Position(5, epoch)).read(4)
        assert {pair.reference, pair.target} <= {0, 2, 4}


def test_groups_without_a_pair_are_left_out_and_are_not_broken(folder: DatasetFolder) -> None:
    loader = Loader(Pairs(folder), AsList(), 10, max_broken=0)
    read = read_by_ranks([loader], 100)
    assert sorted(pair.number for pair in read) == [n for n in range(60) if n % 5]
    assert loader.skipped == 12
    assert loader.broken == []


def test_pairs_are_drawn_anew_in_each_epoch_and_alike_on_any_number_of_ranks(folder: DatasetFolder) -> None:
    def drawn(epoch: int, world: int) -> list[tuple[int, int, int]]:
        loaders = [
            Loader(Pairs(folder), AsList(), 4, Position(9, epoch), rank, world, "pad", threads=1 + world % 2)
            for rank in range(world)
        ]
        return [(pair.number, pair.reference, pair.target) for pair in read_by_ranks(loaders, 100)]

    assert drawn(0, 1) == drawn(0, 3) == drawn(0, 7)
    first, second = ({n: (r, t) for n, r, t in drawn(epoch, 1)} for epoch in (0, 1))
    assert first.keys() == second.keys()
    assert sum(first[n] != second[n] for n in first) > len(first) / 2
