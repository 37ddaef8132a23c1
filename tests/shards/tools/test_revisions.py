"""A training goes on across `forget`: every remaining sample of the epoch once, none twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shards.reading.revisions import Revision, Revisions, from_ranges, map_position, to_ranges
from shards.reading.steps import EpochSteps, Position


def _first(samples: int, percent: int, seed: int) -> np.ndarray:
    """About so many per cent of the samples, at random places, ascending."""
    drawn = np.random.default_rng(seed).random(samples) < percent / 100
    drawn[0] &= not drawn.all()
    return np.flatnonzero(drawn)


def _read(revisions: Revisions, position: Position, steps: int, world: int, names: np.ndarray) -> list[int]:
    """Names of the samples that all ranks read in so many steps of 3."""
    order = revisions.order(position)
    plans = [EpochSteps(order.samples, position, 3, rank, world, "pad") for rank in range(world)]
    read = []
    for number in range(min(steps, len(plans[0]))):
        for plan in plans:
            step = plan[number]
            read += names[order(step.places)[step.weight > 0]].tolist()
    return read


@settings(max_examples=80, deadline=None)
@given(
    samples=st.integers(2, 700),
    percents=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    steps=st.lists(st.integers(0, 60), min_size=3, max_size=3),
    worlds=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 5),
)
@example(10_000, [1], [200, 0, 0], [4, 7, 1, 1], 7, 2)
@example(10_000, [1, 1, 1], [200, 150, 333], [4, 7, 1, 3], 8, 0)
@example(16, [50], [5, 0, 0], [1, 1, 1, 1], 0, 0)
def test_each_remaining_sample_of_the_epoch_is_read_once_whatever_is_forgotten_and_when(
    samples: int, percents: list[int], steps: list[int], worlds: list[int], seed: int, epoch: int
) -> None:
    names = np.arange(samples)  # of the samples there are, by number
    past: list[Revision] = []
    position = Position(seed, epoch)
    read: list[int] = []
    forgotten: dict[int, int] = {}  # how much had been read when it was forgotten
    for round_, percent in enumerate(percents):
        revisions = Revisions(len(names), past)
        position = revisions.map_position(position)
        more = _read(revisions, position, steps[round_], worlds[round_], names)
        read += more
        position = replace(position, consumed=position.consumed + len(more))
        removed = _first(len(names), percent, seed + round_)
        forgotten |= dict.fromkeys(names[removed].tolist(), len(read))
        past.append(Revision(len(names), removed))
        names = np.delete(names, removed)
    revisions = Revisions(len(names), past)
    position = map_position(past, len(names), position)
    read += _read(revisions, position, 10**6, worlds[-1], names)
    when = {name: place for place, name in enumerate(read)}
    assert len(read) == len(when)
    assert set(names.tolist()) <= set(read)
    assert all(when[name] < forgotten[name] for name in set(read) - set(names.tolist()))


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(2, 400), percent=st.integers(1, 80), seed=st.integers(0, 1000))
def test_the_order_of_what_is_left_does_not_change(samples: int, percent: int, seed: int) -> None:
    removed = _first(samples, percent, seed)
    old = Revisions(samples)
    undisturbed = old.order(Position(seed))(np.arange(samples))
    revisions = Revisions(samples - len(removed), [Revision(samples, removed)])
    middle = Position(seed, consumed=1)
    order = revisions.order(revisions.map_position(middle))
    kept = np.setdiff1d(np.arange(samples), removed)
    read = order(np.arange(order.samples))
    assert kept[read].tolist() == [number for number in undisturbed.tolist() if number in set(kept.tolist())]
    assert order.place_of(read).tolist() == list(range(order.samples))


def test_the_next_epoch_is_drawn_from_the_present_revision() -> None:
    revisions = Revisions(90, [Revision(100, np.arange(10))])
    begun = revisions.map_position(Position(3, 1, 0))
    assert (begun.began, begun.revision) == (1, 1)
    fresh = Revisions(90).order(Position(3, 1))
    assert (revisions.order(begun)(np.arange(90)) == fresh(np.arange(90))).all()


def test_a_position_of_a_later_revision_or_another_dataset_is_refused() -> None:
    revisions = Revisions(90, [Revision(100, np.arange(10))])
    with pytest.raises(ValueError, match="of revision 2 of the dataset; this copy has 1"):
        revisions.map_position(Position(0, 0, 5, revision=2))
    with pytest.raises(ValueError, match="no place of a dataset of 100 samples"):
        revisions.map_position(Position(0, 0, 101))


def test_a_history_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match="revision 0 leaves 99 samples, revision 1 has 98"):
        Revisions.of({"groups": 98, "history": [{"revision": 0, "groups": 100, "removed": "7"}]})


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 60)))
def test_removed_numbers_survive_their_text(numbers: set[int]) -> None:
    assert from_ranges(to_ranges(np.array(sorted(numbers), np.int64))).tolist() == sorted(numbers)


def test_the_text_of_removed_numbers_is_short_and_readable() -> None:
    assert to_ranges(np.array([3, 17, 18, 19, 40])) == "3,17-19,40"
