"""`persona serve-vlm`: runs the server that a pipeline names until it is told to stop."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from curation.errors import ConfigError, PersonaError
from curation.models import find_model
from curation.settings import PipelineSettings
from curation.vlm.server import VllmServer
from curation.vlm.serving import plan_of, vllm_roles
from edges.model_server import KEY_VARIABLE

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve_vlm(
    pipeline: PipelineSettings,
    role: str | None,
    host: str,
    port: int,
    log: str | None,
    say: Callable[[str], None],
) -> int:
    """Serves the model of `role` (judge or captioner; None where they share one) until SIGINT or SIGTERM.

    Returns 0 after a clean stop. Raises ConfigError where the pipeline asks no vLLM server, PersonaError
    where the server does not start or dies.
    """
    key = os.environ.get(KEY_VARIABLE)
    if not key and host not in _LOOPBACK:
        raise ConfigError(
            f"--host {host}: whoever reaches it could ask the model: set ${KEY_VARIABLE} to a key"
        )
    role = _role(pipeline, role)
    settings = vllm_roles(pipeline)[role]
    keys = {"judge": "outfits.judge.model", "captioner": "captions.by.model"}
    models = {s.model: find_model(pipeline, keys[name], s.model) for name, s in vllm_roles(pipeline).items()}
    plan = plan_of(pipeline, models, role)
    log = log or str(Path("~/.cache/persona").expanduser() / f"vllm-{plan.name.replace('/', '-')}-{port}.log")
    server = VllmServer(plan, log, host, port, key)
    with _told_to_stop() as stop, suppress(_Stopped):
        try:
            say(f"vLLM is starting with {plan.name} (log: {server.log})")
            server.start(settings.start_s, say)
            say(f"vLLM serves {plan.name} at {server.url} (log: {server.log}); Ctrl-C stops it")
            while server.alive():
                time.sleep(0.5)
            raise PersonaError(server.death())
        finally:
            stop()
            server.stop()
    say("vLLM is stopped")
    return 0


class _Stopped(BaseException):
    """SIGINT or SIGTERM came."""


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], None]]:
    """Raises _Stopped at the first signal; yields a function that makes further ones harmless."""

    def stopped(number: int, frame: FrameType | None) -> None:
        ignore()
        raise _Stopped

    def ignore() -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)

    before = {name: signal.signal(name, stopped) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ignore
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _role(pipeline: PipelineSettings, role: str | None) -> str:
    roles = vllm_roles(pipeline)
    if role is not None and role not in roles:
        raise ConfigError(f"--for {role}: its backend in this pipeline is not vllm")
    if not roles:
        raise ConfigError("neither outfits.judge.backend nor captions.by.backend is vllm: nothing to serve")
    if role is None and len({settings.model for settings in roles.values()}) > 1:
        raise ConfigError("judge and captioner use two models: say --for judge or --for captioner")
    return role or next(iter(roles))
