"""Runs a server in a process group of its own, and ends that group when its parent process is gone.

    python process_guard.py GRACE_S COMMAND [ARGUMENT...]

It prints the server's process id, and ends the group when its own standard input closes (its parent
was killed, or closed it) or on SIGTERM: SIGTERM first, SIGKILL after GRACE_S seconds. It exits with the
server's exit code. Standard library only, so that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType


def main(grace_s: float, command: list[str]) -> int:
    """Runs the command until it ends, or its parent process does."""
    ended = threading.Event()

    def end(number: int = 0, frame: FrameType | None = None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
    with suppress(OSError):
        print(server.pid, flush=True)

    def until_parent_is_gone() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        end()

    threading.Thread(target=until_parent_is_gone, daemon=True).start()
    while server.poll() is None and not ended.wait(0.2):
        pass
    if server.poll() is None:
        _signal_group(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    _signal_group(server.pid, signal.SIGKILL)  # also what outlived the server itself
    return server.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    code = main(float(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
