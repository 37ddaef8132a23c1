"""What a command costs: CPU seconds of all its processes, wall seconds, peak memory of the largest."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_EVERY_S = 0.1


@dataclass(frozen=True)
class Cost:
    """CPU and wall in seconds; `peak_bytes` is the largest resident size of any one process."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    output: str


class _Sampler:
    """CPU time and peak memory of every process below this one, read while they live.

    Ray's processes leave no account of themselves to whoever waits for their parent, so each is read
    ten times a second and its last reading counts: what it did in its last 0.1 s is missed.
    """

    def __init__(self) -> None:
        self.cpu: dict[tuple[int, float], float] = {}
        self.peak: dict[tuple[int, float], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Reads a last time."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(_SAMPLE_EVERY_S):
            for process in me.children(recursive=True):
                try:
                    key = (process.pid, process.create_time())
                    times = process.cpu_times()
                    self.cpu[key] = times.user + times.system
                    self.peak[key] = max(self.peak.get(key, 0), _high_water_bytes(process.pid))
                except (psutil.Error, OSError):
                    continue


def _high_water_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as stream:
        for line in stream:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def cost_of(command: list[str], environment: dict[str, str], limit_s: float | None = None) -> Cost:
    """Runs a command and adds up all that it started (Linux). Raises on a bad exit code.

    Raises TimeoutError where it takes longer than `limit_s`; all that it started is ended then.
    """
    # Daemons that outlive their parent become children of this process, where they are still seen.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sampler = _Sampler()
    began = time.monotonic()
    # A session of its own, so that what it started can be ended with it.
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = run.communicate(timeout=limit_s)
    except BaseException as problem:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        sampler.stop()
        if isinstance(problem, subprocess.TimeoutExpired):
            raise TimeoutError(f"{' '.join(command)}: not within {limit_s} s") from None
        raise
    wall = time.monotonic() - began
    deadline = time.monotonic() + 20
    while psutil.Process().children(recursive=True) and time.monotonic() < deadline:
        time.sleep(_SAMPLE_EVERY_S)
        _reap()
    sampler.stop()
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with code {run.returncode}:\n{errors}")
    return Cost(sum(sampler.cpu.values()), wall, max(sampler.peak.values(), default=0), output)


def _reap() -> None:
    """Waits for orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            continue
    except ChildProcessError:
        return
