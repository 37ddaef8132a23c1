"""Counts what models were asked, in memory and, where $PERSONA_CALLS names a folder, on disk.

The file survives a kill: one line for each call of a model, appended before the call returns, so
that "nothing is done twice" can be counted from outside.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class CallCounter:
    """`asked(stage, ids)` is called by a stage each time it asks its model about some rows."""

    def __init__(self, folder: str | None) -> None:
        self.items: Counter[str] = Counter()
        self._path: Path | None = None
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._path = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.jsonl"

    def asked(self, stage: str, ids: Sequence[str]) -> None:
        """Counts len(ids) items of one stage."""
        self.items[stage] += len(ids)
        if self._path is not None:
            line = json.dumps({"stage": stage, "ids": list(ids)}) + "\n"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
