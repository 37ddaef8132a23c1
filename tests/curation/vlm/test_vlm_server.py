"""Judge and captioner against a real vLLM with a tiny Qwen2-VL: started once, and once more after a kill."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from curation.engine import Endpoint, Job
from curation.meters import CallCounter
from curation.models import Model
from curation.settings import PipelineSettings
from curation.settings.vlm import START_S
from curation.vlm.captioner import VlmCaptioner
from curation.vlm.judge import VlmJudge
from tests.drawn_pipeline import ROOT, command, counts_of, curate, environment, rows_of, write_config
from tests.drawn_pipeline import settings as drawn_settings
from tests.drawn_questions import judge_at, pairs_of, people_of
from tests.drawn_vlm import write_vlm
from training.evaluation.cases import Case, MissingScorerError, Person, Pictured
from training.evaluation.settings import VlmQuestion, VlmSettings
from training.evaluation.vlm_scores import VlmScore
from training.generation.references import LabelledPhoto

# On a busy machine a server takes minutes to get ready, and one test has it started twice.
pytestmark = [pytest.mark.xdist_group("vllm"), pytest.mark.timeout(2 * START_S)]

REQUESTS, IN_FLIGHT = 200, 8
JUDGE: dict[str, Any] = {
    "backend": "vllm", "prompt": "outfit-brief", "canvas_px": [112, 224], "dtype": "float32",
    "context_tokens": 1024, "in_flight": IN_FLIGHT,
}  # fmt: skip
CAPTIONER = {**JUDGE, "prompt": "caption-brief", "canvas_px": [112, 112], "max_tokens": 32}


class Serving:
    """`persona serve-vlm` as a user runs it."""

    def __init__(self, config: Path, log: Path, port: int = 0) -> None:
        self._config, self._log = config, log
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Starts it; returns the line that says that it is ready."""
        words = ("serve-vlm", "drawn", "--config", self._config, "--port", str(self.port), "--log", self._log)
        self.process = subprocess.Popen(
            command(*words),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        assert "starting" in self.process.stdout.readline()
        line = self.process.stdout.readline()
        while "is not ready" in line:
            line = self.process.stdout.readline()
        return line

    def group(self) -> int:
        """The process group of vLLM itself."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            words = " ".join(child.cmdline())
            if (
                os.getpgid(child.pid) == child.pid
                and "api_server" in words
                and "process_guard.py" not in words
            ):
                return child.pid
        raise AssertionError("vLLM does not run")

    def answered(self) -> int:
        """How many requests the server that runs now has answered, as it counts itself."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            text = response.read().decode()
        counts = re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return int(sum(float(count) for count in counts))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pipeline(photos: Path, weights: Path, endpoint: str | None) -> dict[str, Any]:
    found = drawn_settings(photos)
    card = {"file": "tiny", "source": "tests/drawn_vlm.py", "licence": "MIT", "commercial": True}
    found["models"] = {"path": str(weights), "cards": {"tiny": card}}
    found["outfits"]["judge"] = {**JUDGE, "model": "tiny", "endpoint": endpoint}
    found["captions"] = {"by": {**CAPTIONER, "model": "tiny", "endpoint": endpoint}}
    # A model of random weights does not end its sentences: such captions are failed rows.
    found["engine"]["max_failed_share"] = 1
    return found


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_vlm(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def tiny(weights: Path) -> Model:
    return Model("tiny", str(weights / "tiny"), "0" * 64, "MIT")


@pytest.fixture(scope="session")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    config = write_config(folder / "p.yaml", pipeline(folder, weights, None))
    serving = Serving(config, folder / "vllm.log")
    try:
        assert serving.url in serving.start(), (folder / "vllm.log").read_text()[-3000:]
        yield serving
        assert serving.process is not None
        group = serving.group()
        serving.process.terminate()
        assert serving.process.wait(40) == 0  # stopped cleanly, and nothing is left of it
        assert not [p for p in psutil.process_iter() if _group_of(p) == group]
    finally:
        assert serving.process is not None
        serving.process.kill()


def _group_of(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def lines_of(run: Path) -> list[str]:
    """The keys of all remembered answers."""
    files = (run / "outfits" / "_answers").glob("*.jsonl")
    return [json.loads(line)[0] for file in files for line in file.read_text().splitlines()]


def test_200_requests_survive_the_kill_of_the_server_each_answered_once(
    server: Serving, tiny: Model, tmp_path: Path
) -> None:
    people = people_of(tmp_path / "photos", 24)
    pairs = pairs_of(people, REQUESTS)
    judge = judge_at(server.url, tmp_path / "run", tiny, **{**JUDGE, "reconnect_s": START_S})
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.extend(judge.ask(pairs)))
    asking.start()
    while len(lines_of(tmp_path / "run")) < REQUESTS // 4:
        assert asking.is_alive()
        time.sleep(0.02)
    os.killpg(server.group(), signal.SIGKILL)
    assert server.process is not None
    assert server.process.wait(20) == 1
    before = len(lines_of(tmp_path / "run"))
    assert REQUESTS // 4 <= before < REQUESTS
    assert asking.is_alive()
    assert server.url in server.start()
    asking.join(120)
    assert not asking.is_alive()
    assert len(answers) == REQUESTS
    assert [answer.error for answer in answers if answer.error] == []
    remembered = lines_of(tmp_path / "run")
    assert len(remembered) == len(set(remembered)) == REQUESTS
    assert server.answered() == REQUESTS - before  # so none that was answered was asked again
    again = judge_at(server.url, tmp_path / "run", tiny, **JUDGE).ask(pairs)
    assert again == answers
    assert server.answered() == REQUESTS - before


def test_both_ways_to_run_the_model_are_as_sure_of_an_answer(
    server: Serving, tiny: Model, tmp_path: Path
) -> None:
    pairs = pairs_of(people_of(tmp_path / "photos", 12), 40)
    served = judge_at(server.url, tmp_path / "served", tiny, **JUDGE)
    there = served.ask(pairs)
    here = in_process(VlmJudge, "outfits", "judge", tiny, tmp_path).ask(pairs)
    assert len({answer.score for answer in here}) > 20
    for a, b in zip(there, here, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-3)
        assert a.same == b.same or abs(float(a.score or 0) - 0.5) < 5e-3


def in_process(kind: Any, phase: str, key: str, model: Model, folder: Path, url: str | None = None) -> Any:
    """A backend built and opened as a worker does it."""
    settings = pipeline(folder, Path(model.path).parent, None)
    place = settings["outfits"]["judge"] if key == "judge" else settings["captions"]["by"]
    place["backend"] = "transformers" if url is None else "vllm"
    validated = PipelineSettings.model_validate(settings)
    chosen = validated.outfits.judge if key == "judge" else validated.captions.by
    backend = kind(chosen, {"tiny": model})
    endpoints = {} if url is None else {key: Endpoint(url)}
    job = Job(str(folder / f"{phase}-{url is None}"), validated, {"tiny": model}, None, endpoints)
    backend.join_run(job, phase, CallCounter(None))
    return backend


def test_a_model_that_ends_no_sentence_gives_failed_captions_and_not_a_hang(
    server: Serving, tiny: Model, tmp_path: Path
) -> None:
    people = people_of(tmp_path / "photos", 6)
    for captioner in (
        in_process(VlmCaptioner, "captions", "captioner", tiny, tmp_path, server.url),
        in_process(VlmCaptioner, "captions", "captioner", tiny, tmp_path),
    ):
        captions = captioner.caption_each(people)
        assert len(captions) == 6
        assert all((caption.text is None) != (caption.error is None) for caption in captions)


def test_a_real_run_asks_vllm_and_its_rerun_asks_nothing(
    server: Serving, weights: Path, photos: Path, tmp_path: Path
) -> None:
    settings = pipeline(photos, weights, server.url)
    settings["captions"] = {"by": {"backend": "plain"}}
    config = write_config(tmp_path / "p.yaml", settings)
    before = server.answered()
    first = curate(config, tmp_path / "run")
    asked = first["model_calls_this_time"]["outfits"]
    assert asked >= 10
    assert server.answered() - before == asked
    assert counts_of(first)["outfits"][3] == 0
    pairs = [pair for row in rows_of(tmp_path / "run" / "outfits") for pair in row["pairs"]]
    assert len(pairs) == asked
    assert all(0 < pair["score"] < 1 for pair in pairs)
    again = curate(config, tmp_path / "run", "--set", "outfits.min_photos=3")
    assert "outfits" not in again["model_calls_this_time"]
    assert server.answered() - before == asked


def test_an_evaluation_of_a_training_is_scored_by_a_real_server(server: Serving) -> None:
    random = np.random.default_rng(5)
    photos = random.integers(0, 256, (7, 84, 56, 3), np.uint8)
    person = Person("a", LabelledPhoto(photos[6], np.ones((84, 56), np.uint8)), "a")
    pictured = [
        Pictured(Case(f"{number}", person, "A woman reads.", 0), photos[number]) for number in range(6)
    ]
    question = VlmQuestion(
        text="How alike, from 0 to 10? {prompt}", pictures=("reference", "generated"), side_px=84
    )

    def score(model: str) -> list[float | None]:
        settings = VlmSettings(endpoint=f"{server.url}/v1", model=model)
        return VlmScore("vlm_identity", "identity", question, settings).score(pictured)

    before = server.answered()
    scores = score("tiny")
    assert server.answered() - before == 6
    # Its weights are random: what it says is mostly no number, and then no score.
    assert all(score is None or 0 <= score <= 10 for score in scores)
    with pytest.raises(MissingScorerError, match=r"chat/completions: HTTP 404: .*other"):
        score("other")
