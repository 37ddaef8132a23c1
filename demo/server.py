"""The demo's vision-language model: a real vLLM server, started while the world is being drawn.

Where vLLM cannot run on this machine, the same weights run in the workers, through transformers.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from curation.engine import Endpoint
from curation.errors import PersonaError
from curation.settings.vlm import START_S
from curation.vlm.server import ServerSpec, VllmServer, VllmUnavailableError

VLLM, IN_PROCESS = "vLLM", "transformers"
# Judge and captioner are one model behind one server.
_CHOICES = ("outfits.judge", "captions.by")


class DemoVlm:
    """A context in which the model of a pipeline can be asked.

    `begin` starts the server in the background; `settings` waits for it and says what `--set` needs.
    Leaving the context stops the server.
    """

    def __init__(self, plan: ServerSpec, log: Path, say: Callable[[str], None]) -> None:
        self.name = VLLM
        self._server = VllmServer(plan, str(log))
        self._say = say
        self._problem: PersonaError | None = None
        self._starting: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        if self._starting is not None:
            self._starting.join()

    def begin(self) -> None:
        """Starts the server, unless it was; returns at once."""
        if self._starting is None:
            self._say(f"starting vLLM (log: {self._server.log})")
            self._starting = threading.Thread(target=self._start, daemon=True)
            self._starting.start()

    def settings(self) -> list[str]:
        """`key=value` for the pipeline, when the server is ready or cannot run here.

        Raises PersonaError when vLLM could run here and did not start.
        """
        self._wait()
        if isinstance(self._problem, VllmUnavailableError):
            if self.name == VLLM:
                self._say(f"{self._problem}; the model runs in process, through transformers")
            self.name = IN_PROCESS
            return [f"{choice}.backend=transformers" for choice in _CHOICES]
        if self._problem is not None:
            raise self._problem
        return [f"{choice}.endpoint={self._server.url}" for choice in _CHOICES]

    def endpoint(self) -> Endpoint:
        """Where the server answers, when it is ready. Raises PersonaError when it did not start."""
        self._wait()
        if self._problem is not None:
            raise self._problem
        return Endpoint(self._server.url, self._server.key)

    def _wait(self) -> None:
        self.begin()
        assert self._starting is not None
        self._starting.join()

    def _start(self) -> None:
        try:
            self._server.start(START_S, self._say)
        except PersonaError as error:
            self._problem = error
