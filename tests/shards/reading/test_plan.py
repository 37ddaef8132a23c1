"""Ranks, stops and resumes: every sample once, in the order of the undisturbed single reader."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading.steps import EpochSteps, Position, Tail


def _read(plans: list[EpochSteps], steps: int) -> tuple[list[int], Position]:
    """Places that all ranks together read in so many steps, and where that ends."""
    seen: list[int] = []
    after = Position()
    for number in range(steps):
        for plan in plans:
            step = plan[number]
            seen += step.places[step.weight > 0].tolist()
            after = step.after
    return seen, after


@given(
    samples=st.integers(1, 500),
    seed=st.integers(0, 1000),
    sessions=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(0, 20)), max_size=4),
    last=st.tuples(st.integers(1, 9), st.integers(1, 8)),
    tail=st.sampled_from(["pad", "wrap"]),
)
@settings(deadline=None)
def test_stops_and_resumes_with_other_ranks_read_every_sample_once_and_in_order(
    samples: int,
    seed: int,
    sessions: list[tuple[int, int, int]],
    last: tuple[int, int],
    tail: Tail,
) -> None:
    position = Position(seed=seed)
    read: list[int] = []
    for world, batch, stop_after in sessions:
        plans = [EpochSteps(samples, position, batch, rank, world, tail) for rank in range(world)]
        steps = min(stop_after, max(len(plans[0]) - 1, 0))
        if steps:
            seen, position = _read(plans, steps)
            read += seen
    world, batch = last
    plans = [EpochSteps(samples, position, batch, rank, world, tail) for rank in range(world)]
    seen, position = _read(plans, len(plans[0]))
    assert read + seen == list(range(samples))
    assert position == Position(seed, 1, 0)


@given(samples=st.integers(1, 300), world=st.integers(1, 9), batch=st.integers(1, 8))
@settings(deadline=None)
def test_a_dropped_tail_is_counted_and_smaller_than_a_step(samples: int, world: int, batch: int) -> None:
    plans = [EpochSteps(samples, Position(), batch, rank, world) for rank in range(world)]
    seen, _ = _read(plans, len(plans[0]))
    assert seen == list(range(samples - plans[0].dropped))
    assert plans[0].dropped < world * batch


@pytest.mark.parametrize("tail", ["pad", "wrap"])
def test_a_filled_batch_keeps_its_size_and_says_what_only_fills_it(tail: Tail) -> None:
    step = EpochSteps(10, Position(), batch=8, tail=tail)[1]
    assert len(step.places) == 8
    assert step.weight.tolist() == [1, 1] + [0] * 6
    assert step.places.max() < 10
    assert len(set(step.places.tolist())) == (8 if tail == "wrap" else 2)


def test_positions_beyond_the_dataset_are_refused() -> None:
    with pytest.raises(ValueError, match="11 samples are consumed of 10"):
        EpochSteps(10, Position(consumed=11), 4)


def test_all_ranks_do_as_many_steps() -> None:
    for tail in ("drop", "pad", "wrap"):
        counts = {len(EpochSteps(103, Position(consumed=7), 4, rank, 5, tail)) for rank in range(5)}
        assert len(counts) == 1
