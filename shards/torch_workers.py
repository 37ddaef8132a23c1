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
_BLANK: dict[str, Any] = {"number": 0, "iteration": None, "following": None}


class WorkerPasses:
    """The note: the pass that was begun last, and where the one behind it begins.

    Workers of one iteration write the same, in whatever order they come, so nobody waits: a new note is
    written beside the old one, and then it is the current one.
    """

    def __init__(self) -> None:
        self._notes = torch.zeros((2, _NOTE_BYTES), dtype=torch.uint8).share_memory_()
        # Of the current note, and the number of the last pass that each worker has begun.
        self._current = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._begun = torch.zeros(_MAX_WORKERS, dtype=torch.int64).share_memory_()

    def start(self, worker: int, iteration: int) -> Any:
        """Where a worker begins: a state, or None where its own copy of the dataset says it.

        iteration  a number that the workers of one iteration have in common
        """
        note = self._read()
        if note is None:
            return None
        return note["start"] if self._is_of(note, worker, iteration) else note["following"]

    def begin(self, worker: int, iteration: int, start: Any, following: Any) -> None:
        """Says that a worker begins a pass, where, and where the next one begins.

        Raises RuntimeError where that does not fit.
        """
        note = self._read() or _BLANK
        number = note["number"] if self._is_of(note, worker, iteration) else note["number"] + 1
        if number != note["number"] or note["following"] != following:
            said = {"number": number, "iteration": iteration, "start": start, "following": following}
            if not self._write(said):
                raise RuntimeError(f"workers cannot share a state of the data of over {_NOTE_BYTES} bytes")
        self._begun[worker] = number

    def tell(self, state: Any) -> None:
        """What the training process says: the next pass begins there."""
        number = (self._read() or _BLANK)["number"]
        if not self._write({"number": number, "iteration": None, "following": state}):
            self._notes[:, 0] = 0  # new workers have it in their copies
            self._begun.zero_()

    def following(self) -> Any:
        """Where the pass behind that of the workers begins; None where none has begun since `tell`."""
        note = self._read()
        return None if note is None or note["iteration"] is None else note["following"]

    def _is_of(self, note: dict[str, Any], worker: int, iteration: int) -> bool:
        """Whether this worker belongs to the iteration of the note. One number may come twice, where a
        script seeds torch anew before each iteration; one worker begins once."""
        return bool(note["iteration"] == iteration and self._begun[worker] != note["number"])

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
