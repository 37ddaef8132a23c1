"""Batches of shards for a torch training: an IterableDataset, and a DataLoader with its state.

The batches of a rank are those of `loader.Loader`, in its order, for any number of workers: of W workers,
number w makes batches w, w + W, w + 2W … of the rank, whole ones, and DataLoader hands them out in turn. A
state is the position behind the batch that the training loop took last. It travels with the batch, so that
what workers have made ahead counts as unread.

Threads of the training process (no workers) are the fastest: nothing is sent between processes.

A DataLoader starts new worker processes for each iteration, each with a copy of the dataset that the
training process has. That copy has read nothing, so every pass would begin where the first one did.
DataLoader tells the training's copy nothing either; so workers leave a note in memory that all copies share
(`WorkerPasses`).
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from shards.reading.loader import LoadedBatch, Loader

_NOTE_BYTES = 2**20  # shared memory takes up what is written
_MAX_WORKERS = 4096
_TOLD = 8  # states told by the training process that are kept for workers that come late to their pass
_BLANK: dict[str, Any] = {
    "number": 0,
    "iteration": None,
    "following": None,
    "told": {},
    "base": 0,
    "start": None,
}


class WorkerPasses:
    """The note: which pass was begun last, and where the one behind it begins.

    Passes have numbers. Workers that persist begin one pass after the other, and no loader says which; so
    each counts those that it has begun since the first of its iteration, whose number the note has. Others
    may be a pass ahead of a worker that comes late: where it is, its own count says, and not their note.

    Workers of one pass write the same, in whatever order they come, so nobody waits: a new note is written
    beside the old one, and then it is the current one.
    """

    def __init__(self) -> None:
        self._notes = torch.zeros((2, _NOTE_BYTES), dtype=torch.uint8).share_memory_()
        # Of the current note, and the first pass of the last iteration that each worker has begun.
        self._current = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._begun = torch.zeros(_MAX_WORKERS, dtype=torch.int64).share_memory_()
        # Of this process: its iteration's first pass, how many it has begun, where the next one begins.
        self._base, self._count = 0, 0
        self._following: Any = None

    def start(self, worker: int, iteration: int) -> Any:
        """The state where a worker begins, or None where its own copy of the dataset has it.

        iteration  a number that the workers of one iteration have in common; those that persist keep it
        """
        note = self._read()
        if note is None:
            return None
        if not self._is_of(note, worker, iteration):
            return note["following"]
        told = note["told"].get(str(note["base"] + self._count))
        if told is not None:
            return told
        return self._following if self._count else note["start"]

    def begin(self, worker: int, iteration: int, start: Any, following: Any) -> None:
        """Notes that a worker begins a pass, where, and where the next one begins.

        Raises RuntimeError where that does not fit.
        """
        note = self._read() or _BLANK
        if not self._is_of(note, worker, iteration):
            first = note["number"] + 1
            note = {**_BLANK, "number": note["number"], "base": first, "iteration": iteration, "start": start}
            self._count = 0
        number = note["base"] + self._count
        is_news = number > note["number"] or (number == note["number"] and note["following"] != following)
        written = {**note, "number": number, "following": following, "is_told": False}
        if is_news and not self._write(written):
            raise RuntimeError(f"workers cannot share a state of the data of over {_NOTE_BYTES} bytes")
        self._begun[worker] = self._base = note["base"]
        self._count, self._following = self._count + 1, following

    def tell(self, state: Any) -> None:
        """Notes where the training process begins the next pass."""
        note = self._read() or _BLANK
        told = {**note["told"], str(note["number"] + 1): state}
        kept = dict(sorted(told.items(), key=lambda item: int(item[0]))[-_TOLD:])
        if not self._write({**note, "following": state, "told": kept, "is_told": True}):
            self._notes[:, 0] = 0  # new workers have it in their copies
            self._begun.zero_()

    def following(self) -> Any:
        """Where the pass behind that of the workers begins; None where none has begun since `tell`."""
        note = self._read()
        return None if note is None or note["is_told"] else note["following"]

    def _is_of(self, note: dict[str, Any], worker: int, iteration: int) -> bool:
        """Whether this worker belongs to the iteration of the note. One number may come twice, where a
        script seeds torch anew before each iteration; a worker that does not persist begins once."""
        if note["iteration"] != iteration:
            return False
        if self._count:
            return bool(self._base == note["base"])
        return bool(self._begun[worker] != note["base"])

    def _read(self) -> dict[str, Any] | None:
        text = bytes(self._notes[int(self._current)].numpy()).partition(b"\0")[0]
        return dict(json.loads(text)) if text else None

    def _write(self, note: dict[str, Any]) -> bool:
        text = json.dumps(note).encode() + b"\0"
        if len(text) > _NOTE_BYTES:
            return False
        other = 1 - int(self._current)
        self._notes[other, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self._current[0] = other
        return True


class TorchDataset(IterableDataset):
    """The batches of a Loader as dicts, from its position to the end of its epoch.

    A batch: the decoder's arrays as tensors over the same memory, its lists as they are, and
        samples   int64 [batch]     weight   float32 [batch], 0 where a slot must not count
        state     what `load_state_dict` takes to go on behind this batch, on any ranks and workers

    loader   its rank and world are used as they are given; where its world is 1 and torch.distributed
             is initialised, they are taken from there

    Give it to `TorchLoader`. A plain DataLoader, or torchdata's StatefulDataLoader, needs batch_size=None
    and collate_fn=as_it_is. There each iteration is the next epoch; one with workers that was left before
    its end has ended with that, because nobody tells the dataset how far the loop had come.
    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self._loader = loader
        self._passes = WorkerPasses()
        # Of the pass that was begun in this worker: its first state, and that behind it.
        self._start: dict[str, Any] | None = None
        self._following: dict[str, Any] | None = None
        self._skip: int | None = None  # batches, from the position on, before this worker's next one
        self._is_given = False  # a state that this worker has not begun yet
        self._has_ended = False
        distributed = torch.distributed
        if loader.world == 1 and distributed.is_available() and distributed.is_initialized():
            loader.rank, loader.world = distributed.get_rank(), distributed.get_world_size()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Where to begin is settled here and not at the first batch: torchdata asks for states before it.
        worker = get_worker_info()
        if worker is None:
            following = self._passes.following()
            if following is not None:  # workers have read from here before
                self.load_state_dict(following)
            return map(self._as_tensors, self._loader.steps())
        self._begin(worker.id, worker.seed - worker.id)
        return self._in_worker(worker.num_workers)

    def _begin(self, worker: int, iteration: int) -> None:
        """Sets the position to where this worker's pass begins, and tells the next iteration's workers."""
        if not self._is_given:
            start = self._passes.start(worker, iteration)
            if start is not None:
                self._loader.load_state_dict(start)
            self._skip, self._has_ended = worker, False
        self._is_given = False
        self._start = self._loader.state_dict()
        self._following = self._loader.state_at(self._loader.end_of_epoch())
        self._passes.begin(worker, iteration, self._start, self._following)

    def _in_worker(self, workers: int) -> Iterator[dict[str, Any]]:
        assert self._skip is not None
        assert self._following is not None
        if not self._has_ended:
            for batch in self._loader.steps(self._skip, workers):
                # This worker's next batch is that far behind; see state_dict.
                self._skip = workers - 1
                yield self._as_tensors(batch)
        self._loader.load_state_dict(self._following)
        self._has_ended = True

    def state_dict(self) -> dict[str, Any]:
        """Behind the last batch that this copy of the dataset made.

        Inside a worker it also says how many batches other workers make before this one's next, or that
        its pass has ended, so that torchdata's StatefulDataLoader, which asks each worker, resumes with as
        many workers. Raises RuntimeError where workers read and this copy does not know how far the loop is.
        """
        if get_worker_info() is None:
            if self._passes.following() is not None:
                raise RuntimeError("with workers the state is that of the last batch: batch['state']")
            return self._loader.state_dict()
        if self._start is None:
            return self._loader.state_dict()
        if self._has_ended or self._loader.position.epoch != self._start["epoch"]:
            return {**self._start, "skip": 0, "ended": True}
        return {**self._loader.state_dict(), "skip": self._skip}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises ValueError for the state of another dataset."""
        self._loader.load_state_dict(state)
        if get_worker_info() is None:
            self._passes.tell(state)
        elif "skip" in state:
            self._is_given, self._skip, self._has_ended = True, state["skip"], state.get("ended", False)

    def end_epoch(self) -> dict[str, Any]:
        """Passes over the rest of the epoch; the state behind it."""
        self._loader.position = self._loader.end_of_epoch()
        state = self._loader.state_dict()
        self._passes.tell(state)
        return state

    @property
    def broken(self) -> list[str]:
        """What was wrong with samples that this copy of the dataset could not read in this epoch."""
        return self._loader.broken

    def _as_tensors(self, batch: LoadedBatch) -> dict[str, Any]:
        return {
            **{name: as_tensor(value) for name, value in batch.arrays.items()},
            "samples": torch.from_numpy(batch.samples),
            "weight": torch.from_numpy(batch.weight),
            "state": self._loader.state_at(batch.after),
        }


class TorchLoader(DataLoader):
    """A DataLoader over a TorchDataset; its state is that of the training loop, also with workers.

    Each iteration goes from the present position to the end of the epoch; the next one is the next
    epoch. Further options are DataLoader's.
    """

    def __init__(self, dataset: TorchDataset, *, num_workers: int = 0, **options: Any) -> None:
        super().__init__(dataset, batch_size=None, collate_fn=as_it_is, num_workers=num_workers, **options)
        self._state: dict[str, Any] | None = None  # of the loop, where workers are ahead of it

    def __iter__(self) -> Any:
        start = self.state_dict()
        self.dataset.load_state_dict(start)
        self._state, is_empty = start, True
        for batch in super().__iter__():
            is_empty = False
            # Before the loop has it: a state that is saved in the loop counts the batch as used.
            self._state = batch["state"]
            yield batch
        if is_empty:
            self.dataset.load_state_dict(start)
            self._state = self.dataset.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Behind the batch that was handed out last."""
        state: dict[str, Any] = self._state or self.dataset.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, with this loader's own workers and ranks."""
        self.dataset.load_state_dict(state)
        self._state = None


class PinnedMemory:
    """Page-locked memory for a decoder (`memory=`), from which a GPU copies while the loop goes on.

    For a loader without workers, in a process that uses CUDA. Torch keeps such memory from being used
    again before copies out of it have ended, as long as the tensors of the batch are used and not
    arrays made of them.
    """

    def __init__(self, *, pinned: bool = True) -> None:
        self._pinned = pinned

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array over the memory of a tensor, which `as_tensor` finds again."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        tensor = torch.empty(shape, dtype=kind, pin_memory=self._pinned)
        array = tensor.numpy().view(_ArrayOfTensor)
        array.tensor = tensor
        return array


class _ArrayOfTensor(np.ndarray):
    """An array with the tensor whose memory it uses; slices of it have none."""

    tensor: torch.Tensor | None = None


def as_tensor(value: Any) -> Any:
    """An array as a tensor over the same memory; all else as it is."""
    if isinstance(value, _ArrayOfTensor) and value.tensor is not None:
        return value.tensor
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def as_it_is(batch: Any) -> Any:
    """For DataLoader's collate_fn: batches are whole already."""
    return batch
