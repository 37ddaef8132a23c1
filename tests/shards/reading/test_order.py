"""The order of an epoch: a permutation, computed place by place, that is a pure function of its key."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading.order import EpochOrder, Permutation, key_of, keys_of, permute


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_every_place_holds_one_number_and_the_inverse_finds_it(n: int, key: int) -> None:
    permutation = Permutation(n, key)
    values = permutation(np.arange(n))
    assert sorted(values.tolist()) == list(range(n))
    assert (permutation.inverse(values) == np.arange(n)).all()


@given(
    samples=st.integers(1, 4000),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    block=st.integers(1, 40),
    window=st.integers(1, 30),
)
@settings(deadline=None)
def test_an_epoch_holds_every_sample_once_whatever_the_blocks(
    samples: int, seed: int, epoch: int, block: int, window: int
) -> None:
    order = EpochOrder(samples, seed, epoch, block=block, window=window)
    numbers = order(np.arange(samples))
    assert sorted(numbers.tolist()) == list(range(samples))
    assert (order.place_of(numbers) == np.arange(samples)).all()


def test_any_slice_of_an_epoch_is_the_same_slice_of_the_whole() -> None:
    order = EpochOrder(10_007, 3, 5, block=16, window=8)
    whole = order(np.arange(10_007))
    for start, stop, step in ((0, 100, 1), (9_000, 10_007, 1), (3, 10_007, 7), (5_000, 5_001, 1)):
        places = np.arange(start, stop, step)
        assert (EpochOrder(10_007, 3, 5, block=16, window=8)(places) == whole[places]).all()


def test_other_seeds_and_epochs_give_other_orders() -> None:
    orders = [
        EpochOrder(5_000, seed, epoch)(np.arange(5_000)) for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.01


@pytest.mark.parametrize("shards", [16, 20, 150])
def test_neighbours_come_from_one_shard_as_often_as_in_a_perfect_shuffle(shards: int) -> None:
    per_shard = 1_000
    rates = []
    for epoch in range(200 // shards + 5):
        numbers = EpochOrder(shards * per_shard, 9, epoch)(np.arange(shards * per_shard))
        shard = numbers // per_shard
        rates.append((shard[1:] == shard[:-1]).mean())
    perfect = (per_shard - 1) / (shards * per_shard - 1)
    assert np.mean(rates) == pytest.approx(perfect, rel=0.05)


def test_samples_of_one_block_are_spread_over_the_window_they_are_read_in() -> None:
    order = EpochOrder(100_000, 2, 0)
    places = order.place_of(np.arange(16 * 500)).reshape(500, 16)
    gaps = np.diff(np.sort(places, axis=1), axis=1)
    rounds = 100_000 / (7 * 16)  # places: seven windows of sixteen rounds
    assert gaps.mean() == pytest.approx(rounds, rel=0.05)
    assert (np.ptp(places, axis=1) < 100_000 / 7).all()
    assert (gaps == 1).mean() < 0.002


def test_many_permutations_at_once_are_each_one_and_have_inverses() -> None:
    n = np.repeat(np.arange(1, 40), np.arange(1, 40))
    places = np.concatenate([np.arange(size) for size in range(1, 40)])
    found = permute(places, n, keys_of(5, n))
    assert all(sorted(found[n == size].tolist()) == list(range(size)) for size in range(1, 40))
    assert (permute(found, n, keys_of(5, n), inverse=True) == places).all()


def test_a_billion_samples_are_opened_and_looked_up_at_once() -> None:
    order = EpochOrder(10**9 + 7, 1, 2)
    places = np.array([0, 123_456_789, 10**9 + 6])
    numbers = order(places)
    assert (order.place_of(numbers) == places).all()


def test_places_outside_the_epoch_are_refused() -> None:
    with pytest.raises(IndexError, match="0 to 9"):
        EpochOrder(10, 1, 1)(np.array([10]))


def test_keys_depend_on_the_order_of_their_parts() -> None:
    assert len({key_of(1, 2), key_of(2, 1), key_of(1), key_of(1, 2, 0), key_of(0, 1, 2)}) == 5
    assert keys_of(key_of(1), np.array([2, 5])).tolist() == [key_of(1, 2), key_of(1, 5)]
