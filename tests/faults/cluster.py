"""A Ray cluster on this machine for runs to work on, and the processes that do their work."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.drawn_pipeline import ROOT
from tests.faults.small_run import Folder, SmallRun, config_of, photos_of, pipeline
from tests.faults.workplace import Workplace

CPUS = 4


@contextmanager
def _cluster() -> Iterator[str]:
    import ray

    os.environ["PYTHONPATH"] = str(ROOT)  # workers are started by the cluster, not by the command
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=128 * 2**20,
    )
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def address_of(place: Workplace) -> str:
    """Where the session's cluster answers."""
    return place.once("ray", lambda: place.enter(_cluster()))


def ray_run(place: Workplace, scratch: Path, cpus_each: int = 1, seconds: float = 0.05) -> SmallRun:
    """The pipeline on the cluster: two workers with so many processors each; a photo takes `seconds`."""
    name = f"ray {cpus_each} {seconds}"
    found = pipeline(photos_of(place), worker_deaths=4)
    found["people"]["detect"]["by"]["options"] = {"seconds": seconds}
    for phase in ("photos", "people", "identities", "outfits", "captions", "shards"):
        found.setdefault(phase, {})["resources"] = {"workers": 2, "num_cpus": cpus_each}
    options = ("--engine", "ray", "--ray-address", address_of(place))
    # Commands are forked from a process that may be older than the cluster: whether tokens are asked for, Ray
    # settles in the environment of who starts one.
    tokens = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
    return SmallRun(config_of(place, name, found), Folder(scratch / "run"), scratch, options, tokens)


def workers() -> list[psutil.Process]:
    """Processes of the cluster that hold an actor: pools at work, or idle between two tasks."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if re.match(r"ray::_Worker", " ".join(process.cmdline())):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
