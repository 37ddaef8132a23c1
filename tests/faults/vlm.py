"""A vision-language server that has no model and dies as told, and the pipeline that asks it."""

import os
import socket
import time
from contextlib import redirect_stderr
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from random import Random
from typing import Any

from tests.drawn_questions import JUDGE
from tests.fake_vlm import FakeVlm, friendly, serving
from tests.faults.small_run import PHOTOS, photos_of, pipeline
from tests.faults.workplace import Workplace
from tests.forked import Work, shared_count

ANSWER_S = 0.02
"""What an answer takes, so that questions are in flight when it dies."""


def vlm_pipeline(place: Workplace, endpoint: str | None) -> dict[str, Any]:
    """The small pipeline whose judge and captioner ask a server; None: the run starts one."""
    weights = place.folder / "weights"
    (weights / "m").mkdir(parents=True, exist_ok=True)
    (weights / "m" / "config.json").write_text("{}")
    found = pipeline(photos_of(place))
    card = {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}
    found["models"] = {"path": str(weights), "cards": {"tiny": card}}
    shared = {"endpoint": endpoint, "reconnect_s": 120.0, "start_s": 120.0, "in_flight": 4}
    found["outfits"]["judge"] = {**JUDGE, **shared}
    found["captions"] = {
        "by": {**JUDGE, **shared, "prompt": "caption-brief", "canvas_px": [112, 112]},
    }
    return found


class Server:
    """The server as a process of its own, at one port for as long as it is needed."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self.asked = shared_count()
        self._work: Work | None = None

    def start(self) -> None:
        """Begins to serve."""
        self._work = Work(_serve, self._port, self.asked)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._work is not None
        self._work.kill()

    def waits_for_questions(self, number: int, work: Work) -> bool:
        """Until it was asked so often; False where `work` ended before."""
        before = self.asked.value
        while self.asked.value < before + number:
            if not work.running():
                return False
            time.sleep(0.001)
        return True


def questions_until(random: Random) -> int:
    """After how many questions of a run something happens: it asks about two for each photo."""
    return random.randrange(1, len(PHOTOS) + 12)


def _serve(port: int, asked: "Synchronized[int]") -> None:
    def answer(before: int, request: dict[str, Any]) -> tuple[int, Any]:
        with asked.get_lock():
            asked.value += 1
        time.sleep(ANSWER_S)
        return friendly(before, request)

    # Clients that go away meanwhile are no news.
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stderr(nowhere),
        serving(FakeVlm("tiny", answer), port=port),
    ):
        while True:
            time.sleep(1)


def module_that_serves(folder: Path) -> Path:
    """A folder for PYTHONPATH in which vLLM's server is the fake."""
    module = folder / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    for package in (folder / "vllm", module.parent.parent, module.parent):
        (package / "__init__.py").touch()
    module.write_text(
        "import time, tests.fake_vlm as fake\n"
        "friendly = fake.friendly\n"
        f"slow = lambda n, request: (time.sleep({ANSWER_S}), friendly(n, request))[1]\n"
        "class Slow(fake.FakeVlm):\n"
        "    def __init__(self, name):\n        super().__init__(name, slow)\n"
        "fake.FakeVlm = Slow\nfake.main()\n"
    )
    return folder
