"""What a command costs: CPU seconds of all its processes, wall seconds, peak memory of the largest."""

import ctypes
import os
import resource
import subprocess
import time
from dataclasses import dataclass

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """CPU and wall in seconds; `peak_bytes` is the largest resident size of any one process."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    output: str


def cost_of(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command and adds up all it started, also what outlives it. Raises on a bad exit code.

    Runs in a child of its own that adopts orphans (Linux), so that daemons such as Ray's count.
    """
    read_end, write_end = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _measure(command, environment, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    wall = time.monotonic() - began
    code, cpu, peak, output = text.split("\n", 3)
    if code != "0":
        raise RuntimeError(f"{' '.join(command)} ended with code {code}:\n{output}")
    return Cost(float(cpu), wall, int(peak), output)


def _measure(command: list[str], environment: dict[str, str], write_end: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    output = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    with os.fdopen(write_end, "w") as stream:
        stream.write(f"{done.returncode}\n{cpu}\n{usage.ru_maxrss * 1024}\n{output}")
    os._exit(0)
