"""What workers of a DataLoader tell the workers of its next iteration: where that begins.

A DataLoader starts new worker processes for each iteration, each with a copy of the dataset that the training
process has. That one has read nothing, so every pass would begin where the first one did. DataLoader tells
the training's copy nothing either; so workers leave a note in memory that all copies share.
"""

import json
from typing import Any

import torch

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
        """Where a worker begins: a state, or None where its own copy of the dataset says it.

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
        """Says that a worker begins a pass, where, and where the next one begins.

        Raises RuntimeError where that does not fit.
        """
        note = self._read() or _BLANK
        if not self._is_of(note, worker, iteration):
            first = note["number"] + 1
            note = {**_BLANK, "number": note["number"], "base": first, "iteration": iteration, "start": start}
            self._count = 0
        number = note["base"] + self._count
        is_news = number > note["number"] or (number == note["number"] and note["following"] != following)
        said = {**note, "number": number, "following": following, "is_told": False}
        if is_news and not self._write(said):
            raise RuntimeError(f"workers cannot share a state of the data of over {_NOTE_BYTES} bytes")
        self._begun[worker] = self._base = note["base"]
        self._count, self._following = self._count + 1, following

    def tell(self, state: Any) -> None:
        """What the training process says: the next pass begins there."""
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
