"""Which server a run's judge and captioner ask: one that is given, or one that the run starts itself.

Workers start nothing. A worker that meets a question which memory cannot answer, and has no server,
stops the step with ServerNeededError; the command then brings a server up and runs the step again,
which goes on where it was. So a run that must ask nothing starts nothing.
"""

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from curation.engine import Endpoint, Job
from curation.errors import PersonaError, one_line
from curation.models import Model, Models
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.settings.vlm import VlmSettings
from curation.step import Context
from curation.vlm.asking import Question, Questions, Reply
from curation.vlm.server import ServerSpec, ServerStartError, VllmServer, Waiting, models_of
from curation.vlm.session import Asker, Listener, merge_answers
from edges.model_server import KEY_VARIABLE, StatusError, base_of

_RESTARTS = 3
T = TypeVar("T")


class ServerNeededError(PersonaError):
    """A question must be asked and the worker was given no server. `str()` is the role that asks."""


def asker_of(role: str, settings: VlmSettings, questions: Questions, model: Model, job: Job) -> Asker:
    """The model that a role asks: in this process, or behind the role's server."""
    if settings.backend == "transformers":  # type: ignore[attr-defined]
        from curation.vlm.in_process import InProcessVlm

        return InProcessVlm(settings, questions, model)
    endpoint = job.endpoints.get(role)
    if endpoint is None:
        return _NoServer(role)
    from curation.vlm.client import VlmClient  # a run that asks nothing needs no HTTP

    return VlmClient(settings, questions, endpoint.url, endpoint.key)


class _NoServer:
    def __init__(self, role: str) -> None:
        self._role = role

    def ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        raise ServerNeededError(self._role)


def vllm_roles(pipeline: PipelineSettings) -> dict[str, VlmSettings]:
    """The settings of those that ask a vLLM server: `judge`, `captioner`, both or none."""
    roles = {"judge": pipeline.outfits.judge, "captioner": pipeline.captions.by}
    return {role: settings for role, settings in roles.items() if settings.backend == "vllm"}


def plan_of(pipeline: PipelineSettings, models: Models, role: str) -> ServerSpec:
    """What must be served for a role. Roles that can share a server have equal plans."""
    plans = {name: _plan(settings, models) for name, settings in vllm_roles(pipeline).items()}
    own = plans[role]
    sharing = [
        plan for plan in plans.values() if replace(plan, context_tokens=0) == replace(own, context_tokens=0)
    ]
    return replace(own, context_tokens=max(plan.context_tokens for plan in sharing))


def _plan(settings: VlmSettings, models: Models) -> ServerSpec:
    return ServerSpec(
        model=models[settings.model].path,
        name=settings.served_name or settings.model,
        dtype=settings.dtype,
        context_tokens=settings.context_tokens,
        tensor_parallel=settings.tensor_parallel,
        args=tuple(settings.server_args),
    )


class Servers:
    """The servers of one run, in the command's process. `close` stops what was started."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._own: _OwnServer | None = None

    def run(self, phase: str, step: Callable[[], T]) -> T:
        """Runs a step, and again with a server where it needs one."""
        if vllm_roles(self._context.job.pipeline):
            merge_answers(self._context.run.answers(phase))
        try:
            return step()
        except ServerNeededError as needed:
            self._provide(str(needed))
        return step()

    def close(self) -> None:
        """Stops the server that this run started, if any."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _provide(self, role: str) -> None:
        context = self._context
        job, say = context.job, context.progress.say
        settings = vllm_roles(job.pipeline)[role]
        if settings.endpoint is not None:
            endpoint = Endpoint(base_of(settings.endpoint), os.environ.get(KEY_VARIABLE))
            key = "outfits.judge.endpoint" if role == "judge" else "captions.by.endpoint"
            require_model(key, endpoint, settings, say)
        else:
            endpoint = self._own_server(plan_of(job.pipeline, job.models, role), settings)
        context.job = replace(job, endpoints={**job.endpoints, role: endpoint})

    def _own_server(self, plan: ServerSpec, settings: VlmSettings) -> Endpoint:
        if self._own is None or self._own.plan != plan:
            self.close()  # two models rarely fit side by side
            context = self._context
            log = log_of(context.job.run)
            began = time.monotonic()
            self._own = _OwnServer(plan, log, context.engine.address, settings.start_s, context.progress.say)
            waited = context.startup_s.get("vllm", 0.0) + time.monotonic() - began
            context.startup_s["vllm"] = round(waited, 3)
        return self._own.endpoint


class _OwnServer:
    """A server of our own that is started again when it dies."""

    def __init__(
        self, plan: ServerSpec, log: str, host: str, start_s: float, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self._say = say
        self._start_s = start_s
        self._closing = threading.Event()
        self._server = VllmServer(plan, log, host, key=secrets.token_hex(16))
        say(f"vLLM is starting with {plan.name} (log: {self._server.log})")
        began = time.monotonic()
        self._server.start(start_s, say)
        say(f"vLLM is ready at {self._server.url} after {time.monotonic() - began:.0f} s")
        self._watch = threading.Thread(target=self._restart, daemon=True)
        self._watch.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self._server.url, self._server.key)

    def close(self) -> None:
        self._closing.set()
        self._server.stop()
        while self._watch.is_alive():
            self._watch.join(0.5)
            self._server.stop()  # one that was being started again meanwhile

    def _restart(self) -> None:
        """Workers wait for a server that is gone, so it comes back at the same address."""
        for _ in range(_RESTARTS):
            while self._server.alive():
                if self._closing.wait(1.0):
                    return
            if self._closing.is_set():
                return
            self._say(f"{self._server.death()}; it is started again")
            try:
                self._server.stop()
                if self._closing.is_set():
                    return
                self._server.start(self._start_s, self._say)
            except ServerStartError as error:
                self._say(str(error))
                return


def require_model(key: str, endpoint: Endpoint, settings: VlmSettings, say: Callable[[str], None]) -> None:
    """Waits for a given server, `reconnect_s` at most, and checks that it has the model.

    Raises PersonaError with one line where nobody answers or the model has another name there.
    """
    name = settings.served_name or settings.model
    waiting = Waiting(f"{key}: {endpoint.url} does not answer", settings.reconnect_s, say)
    is_told = False
    while True:
        try:
            names = models_of(endpoint.url, endpoint.key)
            break
        except StatusError as error:
            hint = f"; put its key into ${KEY_VARIABLE}" if error.status in (401, 403) else ""
            problem = f"answers HTTP {error.status} to /v1/models{hint}"
            if error.status < 500:
                raise PersonaError(f"{key}: {endpoint.url} {problem}") from None
        except OSError as error:
            problem = f"does not answer: {one_line(error)}"
        if waiting.is_over():
            raise PersonaError(f"{key}: {endpoint.url} {problem} (waited {settings.reconnect_s:g} s)")
        if not is_told:
            say(f"{key}: {endpoint.url} {problem}; waiting up to {settings.reconnect_s:g} s")
            is_told = True
        time.sleep(min(1.0, settings.reconnect_s / 4 + 0.01))
    if name not in names:
        listed = ", ".join(names) or "none"
        raise PersonaError(
            f"{key}: {endpoint.url} has no model '{name}', it has: {listed}; "
            "serve it under that name, or set served_name"
        )


def log_of(run: str) -> str:
    """Where the log of a run's own server lies: in the run, of a run in a store on this machine."""
    return Run(run).server_log or os.path.join(tempfile.gettempdir(), f"persona-vllm-{os.getpid()}.log")
