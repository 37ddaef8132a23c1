"""Tiny trainings in processes of their own, forked from one that has imported the libraries once."""

import socket
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.forked import PROCESSES, preload
from tests.train_tiny import train_in_process

preload("tests.train_tiny", "tests.train_on_shards", "torch.utils.tensorboard")


def start(folder: Path, rank: int = 0, world: int = 1, port: int = 0, **settings: Any) -> ForkServerProcess:
    """One rank of a training; `settings` are those of `train_tiny.training`."""
    process = PROCESSES.Process(target=train_in_process, args=(folder, rank, world, port, settings))
    process.start()
    return process


def ended(process: ForkServerProcess) -> int | None:
    """Its exit code; None where it still runs after five minutes."""
    process.join(300)
    return process.exitcode


def free_port() -> int:
    """Of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
