"""Runs the tasks of a phase: in this process, or on a fixed pool of Ray actors.

No photo and no row passes through the engine: a task names its input and output files, and an
answer is a small dictionary. That is why plain actors do, and Ray Data's blocks are not needed.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from curation.errors import PersonaError, one_line
from curation.models import Models
from curation.ray_address import cluster_address, require_cluster
from curation.settings import EngineSettings, PipelineSettings
from curation.settings.base import Resources


@dataclass(frozen=True)
class Endpoint:
    """A model server that workers may ask; `key` is its secret, and is written nowhere."""

    url: str
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told: the run folder, the pipeline, its weights.

    `calls` is a local folder in which every call of a model is noted, for counting from outside.
    `endpoints` are the servers that are up, by the role that asks them: `judge`, `captioner`.
    """

    run: str
    pipeline: PipelineSettings
    models: Models
    calls: str | None = None
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One unit of work: which input, which output. `detail` is the phase's own.

    beside  the file of the second table, of a step that commits two
    """

    index: int
    source: str
    target: str
    detail: dict[str, Any]
    beside: str = ""


Answer = dict[str, Any]
Work = Callable[[Task], Answer]
Opener = Callable[[Job], Work]
T = TypeVar("T")


class Engine(Protocol):
    """Runs tasks; answers come in any order, each task's once."""

    name: str
    address: str
    """Address under which workers reach this machine."""
    start_s: float
    """Seconds that it took to start."""

    def map(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        """Answers of `opener(job)` on every task; `job` is whatever the workers must know, None where that is
        nothing. Raises PersonaError when it cannot go on."""
        ...

    def workers(self, resources: Resources, tasks: int) -> int:
        """How many workers so many tasks get."""
        ...

    def close(self) -> None:
        """Lets go of what the engine started."""
        ...


class InlineEngine:
    """A for-loop in this process: for tests, small jobs and debuggers."""

    name = "inline"
    address = "127.0.0.1"
    start_s = 0.0

    def map(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        """One task after the other."""
        if not tasks:
            return
        limit_threads(resources.threads)
        work = opener(job)
        for task in tasks:
            yield work(task)

    def workers(self, resources: Resources, tasks: int) -> int:
        """This process."""
        return min(1, tasks)

    def close(self) -> None:
        """Nothing was started."""


class RayEngine:
    """Fixed actor pools on an existing Ray cluster (`address`) or on a local one that it starts."""

    name = "ray"
    address = "127.0.0.1"

    def __init__(self, settings: EngineSettings, address: str | None, local_cpus: int) -> None:
        import ray

        self._ray = ray
        self._settings = settings
        address = cluster_address(address)
        self._local = address is None
        self._pool: list[Any] = []
        self._shape: Resources | None = None
        # Workers without GPUs see none, so that a model is where the pipeline says it is.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address is None:
            options |= {
                "address": "local",
                "num_cpus": max(local_cpus, os.cpu_count() or 1),
                "include_dashboard": False,
                "object_store_memory": 128 * 2**20,
            }
        else:
            require_cluster(address)
            options["address"] = address
        began = time.monotonic()
        try:
            ray.init(**options)
        except Exception as error:  # Ray raises anything, a plain Exception where the machine is too busy
            where = f"reach {address}" if address else "start on this machine"
            raise PersonaError(f"Ray: cannot {where}: {one_line(error)}") from None
        self.start_s = round(time.monotonic() - began, 3)
        if not self._local:
            self.address = str(ray.util.get_node_ip_address())

    def map(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        """Tasks go to whichever actor is free; a task that loses its actor goes to another."""
        if not tasks:
            return
        self._fit_pool(self.workers(resources, len(tasks)), resources)
        whole = False
        try:
            yield from self._drain(opener, job, tasks, resources)
            whole = True
        finally:
            if not whole:
                self._drop_pool()

    def workers(self, resources: Resources, tasks: int) -> int:
        """As many as the pipeline wants, if a local cluster has room for them."""
        return min(resources.workers, tasks, self._places(resources)) if tasks else 0

    def close(self) -> None:
        """Stops the local cluster, or leaves the given one."""
        self._ray.shutdown()

    def _fit_pool(self, workers: int, resources: Resources) -> None:
        """Keeps the processes of the step before where they fit this one: imports take seconds."""
        shape = resources.model_copy(update={"workers": 0})
        if shape != self._shape:
            self._drop_pool()
            self._shape = shape
        while len(self._pool) > workers:
            self._ray.kill(self._pool.pop())
        while len(self._pool) < workers:
            self._pool.append(self._actor(resources))

    def _drop_pool(self) -> None:
        for actor in self._pool:
            self._ray.kill(actor)
        self._pool = []

    def _actor(self, resources: Resources) -> Any:
        options: dict[str, Any] = {
            "num_cpus": resources.num_cpus,
            "num_gpus": resources.num_gpus,
            "max_restarts": 0,
        }
        if resources.memory_gib is not None:
            options["memory"] = int(resources.memory_gib * 2**30)
        return self._ray.remote(**options)(_Worker).remote(resources.threads)

    def _places(self, resources: Resources) -> int:
        """How many workers a local cluster has room for; a given cluster may still grow."""
        if not self._local:
            return resources.workers
        total = self._ray.cluster_resources()
        places = resources.workers
        wants = [("CPU", resources.num_cpus), ("GPU", resources.num_gpus)]
        if resources.memory_gib is not None:
            wants.append(("memory", resources.memory_gib * 2**30))
        for name, want in wants:
            if want > 0:
                have = total.get(name, 0)
                if have < want:
                    raise PersonaError(
                        f"Ray: a worker asks for {want:g} {name}, this machine has {have:g}; "
                        "lower resources in the pipeline or give --ray-address"
                    )
                places = min(places, int(have // want))
        return places

    def _drain(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        ray = self._ray
        waiting = deque(tasks)
        deaths: dict[int, int] = {}
        starting = {actor.open.remote(opener, job): actor for actor in self._pool}
        busy: dict[Any, tuple[Any, Task]] = {}
        began = time.monotonic()
        while waiting or busy:
            done, _ = ray.wait([*starting, *busy], num_returns=1, timeout=1.0)
            if not done:
                if not busy and time.monotonic() - began > self._settings.start_timeout_s:
                    raise PersonaError(
                        f"Ray: no worker got its resources in {self._settings.start_timeout_s:g} s "
                        f"({resources.num_cpus:g} CPU, {resources.num_gpus:g} GPU each)"
                    )
                continue
            reference = done[0]
            task: Task | None = None
            if reference in starting:
                actor = starting.pop(reference)
            else:
                actor, task = busy.pop(reference)
            try:
                answer = ray.get(reference)
            except _lost(ray) as error:
                self._count_death(deaths, task, error)
                if task is not None:
                    waiting.appendleft(task)
                self._pool.remove(actor)
                ray.kill(actor)  # one that is merely out of reach would keep its GPU
                fresh = self._actor(resources)
                self._pool.append(fresh)
                starting[fresh.open.remote(opener, job)] = fresh
                continue
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, PersonaError):
                    raise cause from None
                raise error.as_instanceof_cause() from None
            except ray.exceptions.RayError as error:
                raise PersonaError(f"Ray: {one_line(error)}") from None
            if task is not None:
                yield answer
            if waiting:
                task = waiting.popleft()
                busy[actor.run.remote(task)] = (actor, task)
                began = time.monotonic()

    def _count_death(self, deaths: dict[int, int], task: Task | None, error: Exception) -> None:
        index = -1 if task is None else task.index
        deaths[index] = deaths.get(index, 0) + 1
        if deaths[index] > self._settings.worker_deaths:
            what = "starting" if task is None else f"working on {task.source}"
            cause = " ".join(str(error).split())[:300]
            raise PersonaError(f"Ray: workers died {deaths[index]} times while {what}: {cause}")


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when the process or the node of an actor is gone."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.OutOfMemoryError,
        errors.NodeDiedError,
        errors.WorkerCrashedError,
    )


class _Worker:
    """One actor: holds the models of one step and runs one task at a time."""

    def __init__(self, threads: int) -> None:
        limit_threads(threads)
        self._work: Work | None = None

    def open(self, opener: Callable[[T], Work], job: T) -> None:
        """Gets ready for a step; what the step before held is let go first."""
        self._work = None
        self._work = opener(job)

    def run(self, task: Task) -> Answer:
        """Works on one task."""
        assert self._work is not None
        return self._work(task)


def limit_threads(threads: int) -> None:
    """Threads of the numerical libraries in this process; workers share the cores between them."""
    import cv2

    cv2.setNumThreads(0 if threads == 1 else threads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["PERSONA_THREADS"] = str(threads)
