"""Mixtures: every dataset in its share of any prefix, pass after pass of its own, through any stop."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading.loader import Loader
from shards.reading.mixture import Mixture
from shards.reading.revisions import Revision, Revisions
from shards.reading.steps import Position
from tests.drawn_sources import AsList, Values, read_by_ranks

_PARTS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=6)


def _mixture(parts: list[tuple[int, int]], **settings: Any) -> Mixture:
    sources = [Values([(part, n) for n in range(size)]) for part, (size, _) in enumerate(parts)]
    return Mixture(sources, [weight for _, weight in parts], **settings)


def _stream(mixture: Mixture, seed: int, count: int) -> list[tuple[int, int]]:
    """The first samples of the run, as one undisturbed reader has them, epoch after epoch."""
    read: list[tuple[int, int]] = []
    number = 0
    while len(read) < count:
        epoch = mixture.epoch(Position(seed, number))
        read += [epoch.read(int(n)) for n in epoch.numbers(np.arange(epoch.samples))]
        number += 1
    return read[:count]


@given(parts=_PARTS, seed=st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_any_prefix_holds_each_dataset_in_its_share_to_less_than_a_sample(
    parts: list[tuple[int, int]], seed: int
) -> None:
    stream = _stream(_mixture(parts), seed, 300)
    total = sum(weight for _, weight in parts)
    seen: Counter[int] = Counter()
    for place, (part, _) in enumerate(stream, start=1):
        seen[part] += 1
        for number, (_, weight) in enumerate(parts):
            assert abs(seen[number] - place * weight / total) < 1


@given(parts=_PARTS, seed=st.integers(0, 50), samples=st.integers(1, 90))
@settings(deadline=None, max_examples=40)
def test_each_dataset_is_read_through_before_it_begins_again(
    parts: list[tuple[int, int]], seed: int, samples: int
) -> None:
    stream = _stream(_mixture(parts, samples=samples), seed, 300)
    for number, (size, _) in enumerate(parts):
        own = [n for part, n in stream if part == number]
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == list(range(size))


@given(
    parts=_PARTS,
    seed=st.integers(0, 50),
    samples=st.integers(60, 120),
    sessions=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9)), max_size=5),
)
@settings(deadline=None, max_examples=30)
def test_stops_and_resumes_with_other_ranks_read_the_stream_of_one_reader(
    parts: list[tuple[int, int]], seed: int, samples: int, sessions: list[tuple[int, int, int]]
) -> None:
    state: dict[str, Any] | None = None
    read: list[Any] = []
    for world, batch, steps in [*sessions, (1, 3, 10**6)]:
        loaders = []
        for rank in range(world):
            mixture = _mixture(parts, samples=samples)
            loader = Loader(mixture, AsList(), batch, Position(seed), rank, world, "pad", threads=1)
            if state is not None:
                loader.load_state_dict(state)
            loaders.append(loader)
        read += read_by_ranks(loaders, steps)
        state = loaders[0].state_dict()
    assert read == _stream(_mixture(parts, samples=samples), seed, len(read))
    assert len(read) % samples == 0


def test_numbers_of_samples_tell_their_dataset_and_pass() -> None:
    mixture = _mixture([(5, 1), (20, 1)])
    epoch = mixture.epoch(Position())
    numbers = epoch.numbers(np.arange(25))
    part, passes, sample = mixture.whence(numbers)
    assert [epoch.read(int(n)) for n in numbers] == list(zip(part.tolist(), sample.tolist(), strict=True))
    assert passes[part == 0].tolist() == [0] * 5 + [1] * 5 + [2] * 3
    assert not passes[part == 1].any()


class Forgetful(Values):
    """A source that has forgotten some of its samples."""

    def __init__(self, size: int, removed: list[int]) -> None:
        super().__init__([n for n in range(size) if n not in removed])
        past = [Revision(size, np.array(removed, np.int64))] if removed else []
        self.revisions = Revisions(len(self), past)


def test_a_dataset_that_forgets_goes_on_in_its_pass_without_what_is_gone() -> None:
    other = Values([-n for n in range(1, 31)])
    loader = Loader(Mixture([Forgetful(40, []), other], [1, 1]), AsList(), 10, threads=1)
    before = read_by_ranks([loader], 4)
    removed = [1, 7, 8, 33]
    later = Loader(Mixture([Forgetful(40, removed), other], [1, 1]), AsList(), 10, tail="pad", threads=1)
    later.load_state_dict(loader.state_dict())
    after = read_by_ranks([later], 10**6)
    assert len(before + after) == 70  # the epoch has kept its length
    undisturbed = read_by_ranks([Loader(Mixture([Forgetful(40, []), other], [1, 1]), AsList(), 10)], 10**6)
    mine = [n for n in after if n >= 0]
    expected = [n for n in undisturbed[40:] if n >= 0 and n not in removed]
    assert mine[: len(expected)] == expected
    first = [n for n in before if n >= 0]
    assert len(set(first + mine)) == len(first + mine)


def test_weights_may_change_between_a_stop_and_a_resume() -> None:
    loader = Loader(_mixture([(30, 1), (30, 1)]), AsList(), 10, threads=1)
    before = read_by_ranks([loader], 2)
    later = Loader(_mixture([(30, 4), (30, 1)]), AsList(), 10, threads=1)
    later.load_state_dict(loader.state_dict())
    after = read_by_ranks([later], 2)
    assert Counter(part for part, _ in before) == {0: 10, 1: 10}
    assert Counter(part for part, _ in after) == {0: 16, 1: 4}
    assert len(set(before + after)) == 40


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([1, 0], "at least 1, not 0"),
        ([0.5, 1], "whole numbers"),
        ([1], "2 sources and 1 weights"),
        ([65_537, 1], "at most 65536"),
    ],
)
def test_weights_that_cannot_be_kept_to_are_refused(weights: list[Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Mixture([Values([1]), Values([2])], weights)


def test_the_state_of_another_mixture_is_refused() -> None:
    state = Loader(_mixture([(3, 1)]), AsList(), 1).state_dict()
    with pytest.raises(ValueError, match="mixture of 1 sources; this one has 2"):
        Loader(_mixture([(3, 1), (4, 1)]), AsList(), 1).load_state_dict(state)
