"""Commands of persona in processes forked from one that has imported the libraries once.

The imports of a command take seconds, and a fault is to fall into what comes after them. Everything
else is as in a shell: arguments, environment, a process of its own that SIGKILL ends.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

TIMEOUT_S = 600.0
"""A command that has not ended by then hangs."""

PROCESSES = get_context("forkserver")
_PRELOADED: list[str] = []


def preload(*modules: str) -> None:
    """Adds to what is imported before the first fork; call it where a file of tests is imported.

    All processes are forked from one server, which starts with the first of them. Commands of curation
    and of shards need `tests.preloaded`.
    """
    _PRELOADED.extend(name for name in modules if name not in _PRELOADED)
    PROCESSES.set_forkserver_preload(_PRELOADED)


def shared_count() -> "Synchronized[int]":
    """A number that processes forked from now on can share."""
    return cast("Synchronized[int]", PROCESSES.Value("q", 0))


def _run(words: Sequence[str], environment: Mapping[str, str | None], said: str) -> None:
    """In the forked process: becomes the command."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    import persona

    sys.exit(persona.main(list(words)))


class Work:
    """A function that runs in a forked process."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._process = PROCESSES.Process(target=function, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.cpu_s = 0.0

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def reaches(self, cpu_s: float) -> bool:
        """Waits until it has used so much of a processor; False where it ended before.

        Processor time is how far it has come, however busy the machine is. `cpu_s` is kept up to date.
        """
        began = time.monotonic()
        while self.running():
            try:
                self.cpu_s = max(self.cpu_s, time.clock_gettime((~self.pid << 3) | 2))
            except OSError:  # it ended in this moment
                return False
            if self.cpu_s >= cpu_s:
                return True
            if time.monotonic() - began > TIMEOUT_S:
                self.kill()
                raise TimeoutError(f"no end in {TIMEOUT_S:g} s")
            time.sleep(0.001)
        return False

    def kill(self) -> None:
        """SIGKILL to this process alone: what it started must look after itself."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join()

    def exit_code(self) -> int:
        """When it has ended. Raises TimeoutError, having killed it, where it does not."""
        self.reaches(math.inf)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


class Command(Work):
    """One command of persona. What it prints goes to the file `said`; None in `environment` unsets."""

    def __init__(
        self, words: Sequence[str | Path], said: Path, environment: Mapping[str, str | None] | None = None
    ) -> None:
        self.words = [str(word) for word in words]
        self._said = said
        super().__init__(_run, self.words, dict(environment or {}), str(said))

    def said(self) -> str:
        """What it has printed so far, errors among it."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""
