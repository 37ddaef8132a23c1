"""Torch's DataLoader over shards: the plain loader's batches in its order, for any number of workers."""

import json
import os
import socket
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from shards.reading.loader import Loader
from shards.reading.mixture import Mixture
from shards.reading.order import EpochOrder
from shards.reading.steps import Position, Tail
from shards.reading.torch_dataset import PinnedMemory, TorchDataset, TorchLoader, as_it_is, as_tensor
from tests.drawn_sources import AsList, Values, read_by_ranks, values_of

# Torch advises against more workers than cores; these only count.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class AsArrays:
    """Decodes a number into a row of an array, and a list."""

    def __init__(self, memory: Any = None) -> None:
        self._memory = memory

    def allocate(self, batch: int) -> dict[str, Any]:
        rows = self._memory.take((batch, 3), np.float32) if self._memory else np.zeros((batch, 3), np.float32)
        return {"rows": rows, "names": [None] * batch}

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        arrays["rows"][slot] = sample
        arrays["names"][slot] = f"n{sample}"


def _loader(
    workers: int, count: int, batch: int = 4, persistent_workers: bool = False, **options: Any
) -> TorchLoader:
    dataset = TorchDataset(Loader(Values(range(count)), AsList(), batch, threads=1, **options))
    return TorchLoader(dataset, num_workers=workers, persistent_workers=persistent_workers)


def _taken(batch: dict[str, Any]) -> list[Any]:
    return [value for value, weight in zip(batch["value"], batch["weight"].tolist(), strict=True) if weight]


@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 9),
    tail=st.sampled_from(["drop", "pad", "wrap"]),
    sessions=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=2),
)
@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
def test_any_workers_stops_and_resumes_read_what_the_plain_loader_reads(
    count: int, seed: int, tail: Tail, sessions: list[tuple[int, int]]
) -> None:
    state = Loader(Values(range(count)), AsList(), 4, Position(seed)).state_dict()
    read: list[Any] = []
    for workers, stop_after in [*sessions, (1, 10**6)]:
        if state["epoch"] > 0:
            break
        loader = _loader(workers, count, tail=tail)
        loader.load_state_dict(state)
        for number, batch in enumerate(loader):
            read += _taken(batch)
            assert loader.state_dict() == batch["state"]
            if number + 1 >= stop_after:
                break
        state = json.loads(json.dumps(loader.state_dict()))
    plain = EpochOrder(count, seed, 0)(np.arange(count)).tolist()
    assert read == (plain[: count // 4 * 4] if tail == "drop" else plain)
    assert (state["epoch"], state["consumed"]) == (1, 0)


@pytest.mark.parametrize("workers", [0, 3])
def test_one_epoch_follows_the_other(workers: int) -> None:
    loader = _loader(workers, 21, tail="pad")
    epochs = [[value for batch in loader for value in _taken(batch)] for _ in range(3)]
    assert epochs == [EpochOrder(21, 0, epoch)(np.arange(21)).tolist() for epoch in range(3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_without_a_whole_step_ends_and_the_next_one_begins(workers: int) -> None:
    loader = _loader(workers, 3)
    assert list(loader) == []
    assert loader.state_dict()["epoch"] == 1


def test_what_workers_have_made_ahead_counts_as_unread() -> None:
    loader = _loader(2, 80)
    reader = iter(loader)
    first = [value for _ in range(3) for value in _taken(next(reader))]
    assert loader.state_dict()["consumed"] == 12
    del reader
    again = _loader(0, 80)
    again.load_state_dict(loader.state_dict())
    assert first + [v for b in again for v in _taken(b)] == EpochOrder(80, 0, 0)(np.arange(80)).tolist()


def test_a_mixture_goes_through_workers_and_ranks_in_one_order() -> None:
    def mixture() -> Mixture:
        return Mixture([Values(range(10)), Values(range(100, 150))], [1, 2], samples=48)

    undisturbed = Loader(mixture(), AsList(), 4, threads=1)
    wanted = [value for _ in range(2) for batch in undisturbed for value in values_of(batch)]
    loader = TorchLoader(TorchDataset(Loader(mixture(), AsList(), 4, threads=1)), num_workers=2)
    read = [value for batch, _ in zip(loader, range(5), strict=False) for value in _taken(batch)]
    ranks = [Loader(mixture(), AsList(), 2, rank=rank, world=2, threads=1) for rank in range(2)]
    # zip has taken a sixth batch off the loader, which the loop has not used: its state is not saved.
    state = Loader(mixture(), AsList(), 4).state_at(Position(consumed=20))
    for rank in ranks:
        rank.load_state_dict(state)
    read += read_by_ranks(ranks, 100)
    read += read_by_ranks(ranks, 100)
    assert read == wanted


def test_workers_of_a_stateful_data_loader_resume_each_at_its_own_batch() -> None:
    """What torchdata's StatefulDataLoader does: it keeps each worker's own state, and gives it back."""

    def loader() -> Any:
        dataset = TorchDataset(Loader(Values(range(60)), AsList(), 4, threads=1))
        return StatefulDataLoader(dataset, batch_size=None, num_workers=3, collate_fn=as_it_is)

    one, read = loader(), []
    for number, batch in enumerate(one):
        read += _taken(batch)
        if number == 6:
            state = one.state_dict()
            break
    other = loader()
    other.load_state_dict(state)
    assert read + [v for b in other for v in _taken(b)] == EpochOrder(60, 0, 0)(np.arange(60)).tolist()


def _plain(kind: Any, workers: int, **options: Any) -> Any:
    """A DataLoader of torch or torchdata over 22 samples: five batches of four, and one of two."""
    dataset = TorchDataset(Loader(Values(range(22)), AsList(), 4, threads=1, tail="pad"))
    return kind(dataset, batch_size=None, num_workers=workers, collate_fn=as_it_is, **options)


def _epoch(number: int) -> list[int]:
    return list(EpochOrder(22, 0, number)(np.arange(22)).tolist())


def _read(loader: Any) -> list[int]:
    return [value for batch in loader for value in _taken(batch)]


@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize(("workers", "persist"), [(0, False), (3, False), (3, True)])
def test_each_iteration_of_any_data_loader_is_the_next_epoch(kind: Any, workers: int, persist: bool) -> None:
    loader = _plain(kind, workers, persistent_workers=persist)
    for number in range(3):
        torch.manual_seed(0)  # as scripts do: then all iterations look the same to workers
        assert _read(loader) == _epoch(number)


def _late(worker: int) -> None:
    """For worker_init_fn: the second worker begins when the others are far ahead."""
    if worker == 1:
        time.sleep(0.5)


@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("told", [False, True])
def test_a_worker_that_comes_late_to_a_pass_that_was_left_reads_the_next_one_with_the_others(
    kind: Any, told: bool
) -> None:
    loader = _plain(kind, 2, persistent_workers=True, worker_init_fn=_late)
    assert _taken(next(iter(loader))) == _epoch(0)[:4]
    if told:
        loader.dataset.load_state_dict(Loader(Values(range(22)), AsList(), 4, Position(0, 5)).state_dict())
    assert _read(loader) == _epoch(5 if told else 1)
    assert _read(loader) == _epoch(6 if told else 2)


@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("persist", [False, True])
def test_an_epoch_that_was_left_early_is_followed_by_the_next_one_whole(kind: Any, persist: bool) -> None:
    loader = _plain(kind, 2, persistent_workers=persist)
    assert _taken(next(iter(loader))) == _epoch(0)[:4]
    assert _read(loader) == _epoch(1)
    assert _read(loader) == _epoch(2)


@pytest.mark.parametrize("persist", [False, True])
def test_a_data_loader_with_workers_goes_on_where_the_dataset_is_told_to(persist: bool) -> None:
    loader = _plain(DataLoader, 2, persistent_workers=persist)
    batches = iter(loader)
    taken = [next(batches) for _ in range(3)]
    with pytest.raises(RuntimeError, match="batch"):
        loader.dataset.state_dict()  # it does not know what the loop has taken
    del batches
    loader.dataset.load_state_dict(taken[-1]["state"])
    assert [value for batch in taken for value in _taken(batch)] + _read(loader) == _epoch(0)
    assert _read(loader) == _epoch(1)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_stateful_data_loader_goes_on_from_any_batch_into_the_epochs_behind_it(workers: int) -> None:
    """Also from the start of an epoch, from its last batch, and from behind its end; in one process with
    the loader that saved the state, or as a loader of its own."""
    saving = _plain(StatefulDataLoader, workers)
    assert _read(saving) == _epoch(0)
    states, read = [], 0
    batches = iter(saving)
    states.append((saving.state_dict(), 0))
    for batch in batches:
        read += len(_taken(batch))
        states.append((saving.state_dict(), read))
    states.append((saving.state_dict(), read))
    for state, done in (states[0], states[1], states[3], states[-2], states[-1]):
        resumed = _plain(StatefulDataLoader, workers)
        resumed.load_state_dict(state)
        rest = _read(resumed) or _read(resumed)
        assert rest == (_epoch(1)[done:] or _epoch(2))
        assert _read(resumed) == _epoch(2 if done < 22 else 3)


def test_batches_are_tensors_over_the_memory_that_was_decoded_into() -> None:
    memory = PinnedMemory(pinned=torch.cuda.is_available())
    batch = next(iter(TorchDataset(Loader(Values(range(8)), AsArrays(memory), 8))))
    assert batch["rows"].dtype == torch.float32
    assert sorted(batch["rows"][:, 2].tolist()) == list(range(8))
    assert batch["names"] == [f"n{n}" for n in batch["samples"].tolist()]
    array = np.zeros(3)
    as_tensor(array)[1] = 5
    assert array[1] == 5


def test_ranks_come_from_torch_distributed_where_none_are_given() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        given_ranks = TorchDataset(Loader(Values(range(12)), AsList(), 2, rank=1, world=3))
        assert [_taken(b) for b in given_ranks] == [
            EpochOrder(12, 0, 0)(np.arange(start, start + 2)).tolist() for start in (2, 8)
        ]
        assert len(list(TorchDataset(Loader(Values(range(12)), AsList(), 2)))) == 6
    finally:
        torch.distributed.destroy_process_group()


def test_persistent_workers_go_on_behind_the_batch_that_the_loop_took_last() -> None:
    loader = _loader(2, 40, persistent_workers=True)
    first = [value for batch, _ in zip(loader, range(3), strict=False) for value in _taken(batch)]
    state = loader.state_dict()  # of the fourth batch, which zip has taken off the loader
    assert (len(first), state["consumed"]) == (12, 16)
    assert _read(loader) == EpochOrder(40, 0, 0)(np.arange(16, 40)).tolist()
    assert _read(loader) == EpochOrder(40, 0, 1)(np.arange(40)).tolist()
    loader.load_state_dict(state)
    assert _read(loader) == EpochOrder(40, 0, 0)(np.arange(16, 40)).tolist()
