"""Batches: decoded by threads, in the order of the plan, through stops, resumes and broken samples."""

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading.loader import Loader, TooManyBrokenError
from shards.reading.order import EpochOrder
from shards.reading.source import Source
from shards.reading.steps import Position, Tail


class Numbers(Source):
    """A source whose samples are their own numbers; some cannot be read."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self._count, self._broken = count, broken

    def __len__(self) -> int:
        return self._count

    def read(self, sample: int) -> int:
        if sample in self._broken:
            raise OSError(f"cannot read {sample}")
        return sample


class AsArray:
    """Decodes a number into an array."""

    def allocate(self, batch: int) -> dict[str, Any]:
        return {"value": np.full(batch, -1, np.int64)}

    def decode(self, sample: int, arrays: dict[str, Any], slot: int) -> None:
        arrays["value"][slot] = sample


def _values(loader: Loader, batches: int | None = None) -> list[int]:
    read: list[int] = []
    for number, batch in enumerate(loader):
        read += batch.arrays["value"][batch.weight > 0].tolist()
        if batches is not None and number + 1 == batches:
            break
    return read


@given(
    count=st.integers(1, 200),
    seed=st.integers(0, 99),
    sessions=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(1, 6)), max_size=3),
    tail=st.sampled_from(["pad", "wrap"]),
)
@settings(deadline=None, max_examples=40)
def test_all_ranks_read_what_one_undisturbed_reader_reads_in_its_order(
    count: int, seed: int, sessions: list[tuple[int, int, int]], tail: Tail
) -> None:
    state: dict[str, Any] = {"seed": seed, "epoch": 3, "consumed": 0}
    read: list[int] = []
    for world, threads, batches in [*sessions, (1, 2, 10**6)]:
        if state["epoch"] > 3:
            break
        by_rank = []
        for rank in range(world):
            loader = Loader(
                Numbers(count), AsArray(), 4, rank=rank, world=world, tail=tail, threads=max(threads, 1)
            )
            loader.load_state_dict(state)
            steps: list[list[int]] = []
            for number, batch in enumerate(loader):
                steps.append(batch.arrays["value"][batch.weight > 0].tolist())
                if number + 1 == batches:
                    break
            by_rank.append(steps)
        state = loader.state_dict()
        read += [value for step in zip(*by_rank, strict=True) for part in step for value in part]
    assert read == EpochOrder(count, seed, 3)(np.arange(count)).tolist()
    assert (state["seed"], state["epoch"], state["consumed"]) == (seed, 4, 0)


def test_the_state_counts_batches_that_were_handed_out_not_those_read_ahead() -> None:
    loader = Loader(Numbers(1000), AsArray(), 10, ahead=5)
    first = _values(loader, batches=3)
    assert loader.state_dict()["consumed"] == 30
    again = Loader(Numbers(1000), AsArray(), 10)
    again.load_state_dict(loader.state_dict())
    assert first + _values(again) == _values(Loader(Numbers(1000), AsArray(), 10))


def test_a_broken_sample_is_skipped_counted_and_named() -> None:
    loader = Loader(Numbers(40, frozenset({7, 30})), AsArray(), 8)
    assert sorted(_values(loader)) == [n for n in range(40) if n not in (7, 30)]
    assert sorted(loader.broken) == ["sample 30: cannot read 30", "sample 7: cannot read 7"]


def test_too_many_broken_samples_stop_with_the_reason() -> None:
    loader = Loader(Numbers(40, frozenset(range(20))), AsArray(), 8, max_broken=3)
    with pytest.raises(TooManyBrokenError, match=r"4 samples .* cannot read \d+"):
        _values(loader)


def test_threads_decode_side_by_side_and_none_is_left_behind() -> None:
    together = threading.Barrier(2, timeout=20)

    class Meets(AsArray):
        def decode(self, sample: int, arrays: dict[str, Any], slot: int) -> None:
            together.wait()
            super().decode(sample, arrays, slot)

    before = threading.active_count()
    assert len(_values(Loader(Numbers(8), Meets(), 2, threads=2))) == 8
    loader = iter(Loader(Numbers(800), AsArray(), 2))
    next(loader)
    loader.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_positions_are_plain_numbers_that_can_be_stored() -> None:
    loader = Loader(Numbers(10), AsArray(), 5, position=Position(4, 2, 5))
    state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert (state["seed"], state["epoch"], state["consumed"]) == (4, 2, 5)


def test_the_state_of_another_dataset_is_refused() -> None:
    loader = Loader(Numbers(10), AsArray(), 5)
    with pytest.raises(ValueError, match=r"of a dataset of 12 samples; revision 0 of this one has 10"):
        loader.load_state_dict(Loader(Numbers(12), AsArray(), 5).state_dict())


def test_states_of_before_there_were_revisions_are_still_read() -> None:
    loader = Loader(Numbers(10), AsArray(), 5)
    loader.load_state_dict({"seed": 4, "epoch": 2, "consumed": 5})
    assert loader.position == Position(4, 2, 5)


def test_a_dropped_tail_is_counted_by_the_loader() -> None:
    loader = Loader(Numbers(43), AsArray(), 5, world=4, rank=1)
    assert len(_values(loader)) == 10
    assert loader.dropped == 3


def test_reading_goes_over_the_end_of_an_epoch_without_a_stop() -> None:
    begun = 0

    class Counted(AsArray):
        def allocate(self, batch: int) -> dict[str, Any]:
            nonlocal begun
            begun += 1
            return super().allocate(batch)

    loader = Loader(Numbers(6, frozenset({5})), Counted(), 2, tail="pad", ahead=3)
    stream = loader.endless()
    read, epochs, broken = [], [], []
    for number in range(9):
        batch = next(stream)
        read += batch.arrays["value"][batch.weight > 0].tolist()
        epochs.append(batch.epoch)
        broken.append(len(loader.broken))
        assert begun == number + 1 + 3
    stream.close()  # type: ignore[attr-defined]
    assert epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert broken[2::3] == [1, 1, 1]
    one_by_one = [_values(Loader(Numbers(6, frozenset({5})), AsArray(), 2, Position(0, n))) for n in range(3)]
    assert read == [value for epoch in one_by_one for value in epoch]


def test_an_epoch_without_a_step_ends_what_has_no_end() -> None:
    assert not list(Loader(Numbers(3), AsArray(), 4).endless())
    rest = Loader(Numbers(6), AsArray(), 4, Position(0, 0, 5)).endless()
    assert next(rest).epoch == 1
