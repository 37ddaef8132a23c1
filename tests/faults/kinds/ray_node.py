"""SIGKILL of everything on one node of a Ray cluster of two, as when its power fails."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import psutil

from tests.drawn_pipeline import ROOT, environment
from tests.faults.cluster import CPUS, address_of, ray_run
from tests.faults.workplace import BrokenPromiseError, Injury, Unavailable, Workplace

SHARE = 1
SLOW = True
_JOIN_S = 300.0


def injure(place: Workplace, random: Random) -> Injury:
    """A second node joins, each node has one of the two workers, and the second node is lost."""
    later_s = random.uniform(0, 3)
    undisturbed = ray_run(place, place.fresh(), CPUS, seconds=0.3).undisturbed(place, "ray nodes")
    node = _Node(address_of(place))
    try:
        run = ray_run(place, place.fresh(), CPUS, seconds=0.3)
        command = run.start()
        while command.running() and not node.works():
            time.sleep(0.05)
        time.sleep(later_s)
        hit = command.running()
        node.lose()
        if command.exit_code():
            raise BrokenPromiseError(f"a lost node stopped the run: {command.said()[-300:].strip()}")
        run.check_visible()
        run.finish(undisturbed)
    finally:
        node.lose()
    return Injury(hit, f"lost {later_s:.1f} s after it began to work")


class _Node:
    """A second node of the cluster."""

    def __init__(self, address: str) -> None:
        import ray

        before = sum(node["Alive"] for node in ray.nodes())
        words = ["start", f"--address={address}", f"--num-cpus={CPUS}", "--block", "--disable-usage-stats"]
        self._process = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), *words, f"--object-store-memory={128 * 2**20}"],
            cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _JOIN_S
        while sum(node["Alive"] for node in ray.nodes()) <= before:
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.lose()
                raise Unavailable("no second node joined the cluster")
            time.sleep(0.2)

    def _family(self) -> list[psutil.Process]:
        try:
            mother = psutil.Process(self._process.pid)
            return [mother, *mother.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def works(self) -> bool:
        """Whether a worker of a run is on it."""
        for process in self._family():
            try:
                if " ".join(process.cmdline()).startswith("ray::_Worker"):
                    return True
            except psutil.NoSuchProcess:
                continue
        return False

    def lose(self) -> None:
        """All of its processes are gone at once."""
        for process in self._family():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
