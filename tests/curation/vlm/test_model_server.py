"""Curation and training ask a model's server by the same rules: no proxy, one key, further attempts."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curation.settings.vlm import START_S, VllmJudgeSettings
from curation.vlm.server import Waiting, models_of
from edges.model_server import MalformedResponseError, StatusError, ask, chat_url, request
from tests.drawn_pipeline import ROOT
from tests.drawn_questions import judge_at, pairs_of, people_of
from tests.fake_vlm import FakeVlm, Response, completion, serving
from training.evaluation.cases import Case, Person, Pictured
from training.evaluation.settings import VlmQuestion, VlmSettings
from training.evaluation.vlm_scores import VlmScore
from training.generation.references import LabelledPhoto

QUESTION = {"model": "tiny", "messages": []}


@pytest.fixture
def fake() -> Iterator[FakeVlm]:
    with serving(FakeVlm()) as server:
        yield server


class RawServer:
    """A port that answers its first connection with these bytes and, with `drips`, one more each 50 ms."""

    def __init__(self, answer: bytes, drips: bool = False) -> None:
        self._answer, self._drips = answer, drips
        self._heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> tuple[str, list[bytes]]:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}", self._heard

    def __exit__(self, *_: Any) -> None:
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self._heard.append(connection.recv(1 << 16))
            connection.sendall(self._answer)
            try:
                while self._drips:
                    connection.sendall(b" ")
                    time.sleep(0.05)
            except OSError:
                return


def scored(endpoint: str, **changes: Any) -> list[float | None]:
    """What training hears about one picture."""
    photo = LabelledPhoto(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
    case = Case("case", Person("0", photo, "0"), "A person.", 0)
    settings = VlmSettings(endpoint=endpoint, model="tiny", **changes)
    question = VlmQuestion(text="?", pictures=("generated",))
    return VlmScore("vlm_text", "text", question, settings).score([Pictured(case, photo.photo)])


def test_no_client_of_a_model_server_asks_a_proxy(
    fake: FakeVlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    (answer,) = judge_at(fake.url, tmp_path).ask(pairs_of(people_of(tmp_path / "photos", 2), 1))
    assert answer.same
    assert models_of(fake.url) == ["tiny"]
    fake.behaviour = lambda before, asked: (200, completion("8"))
    assert scored(fake.url) == [8]


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_an_endpoint_is_given_with_or_without_the_version(fake: FakeVlm, end: str) -> None:
    fake.behaviour = lambda before, asked: (200, completion("8"))
    assert scored(fake.url + end) == [8]


def in_trouble(answers: dict[int, Response]) -> Callable[[int, dict[str, Any]], Response]:
    """The n-th attempt of a question is answered so; further ones well."""
    return lambda before, asked: answers.get(before, (200, completion("8")))


@pytest.mark.parametrize(
    "trouble",
    [
        (503, {}),
        (429, {}),
        (200, b"<html>"),
        (200, {"choices": []}),
        (200, {"choices": [{"message": {"content": None}}]}),
    ],
)
def test_a_question_that_meets_trouble_is_asked_again(fake: FakeVlm, trouble: Response) -> None:
    fake.behaviour = in_trouble({0: trouble})
    assert scored(fake.url) == [8]
    assert list(fake.asked.values()) == [2]


def test_a_question_that_the_server_refuses_is_asked_once_and_its_message_is_passed_on(fake: FakeVlm) -> None:
    fake.behaviour = in_trouble({0: (400, {"error": {"message": "the picture is too large"}})})
    with pytest.raises(StatusError, match="HTTP 400: the picture is too large"):
        ask(chat_url(fake.url), None, QUESTION, 5, retries=3)
    assert list(fake.asked.values()) == [1]


def test_the_last_trouble_is_what_is_said(fake: FakeVlm) -> None:
    fake.behaviour = in_trouble({0: (503, {}), 1: (200, b"<html>")})
    with pytest.raises(MalformedResponseError, match="the response is not JSON"):
        ask(chat_url(fake.url), None, QUESTION, 5, retries=1)


def test_training_shows_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_VLM_KEY", "of the server")
    with RawServer(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n") as (url, heard):
        with pytest.raises(ValueError, match="HTTP 400"):
            scored(url, retries=0)
        assert b"Authorization: Bearer of the server" in heard[0]


def test_an_answer_that_never_ends_is_given_up_in_time() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    began = time.monotonic()
    with RawServer(head, drips=True) as (url, _), pytest.raises(TimeoutError):
        request(url, None, 0.3)
    assert time.monotonic() - began < 3


def test_a_server_that_speaks_no_http_is_an_os_error() -> None:
    with (
        RawServer(b"220 mail.example ESMTP\r\n") as (url, _),
        pytest.raises(OSError, match="no HTTP answer"),
    ):
        request(url, None, 5)


def test_whoever_waits_for_a_server_is_told_for_how_long() -> None:
    said: list[str] = []
    waiting = Waiting("vLLM is not ready", 0.5, said.append, every_s=0.2)
    while not waiting.is_over():
        time.sleep(0.02)
    assert said == ["vLLM is not ready after 0 s; waiting up to 0.5 s"] * 2


def test_a_server_that_starts_has_ten_minutes_at_least_wherever_it_is_started() -> None:
    probe = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "vllm.yaml").read_text())
    (container,) = [
        container
        for entry in probe
        if entry["kind"] == "Deployment"
        for container in entry["spec"]["template"]["spec"]["containers"]
    ]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= START_S >= 600
    settings = VllmJudgeSettings(model="tiny", prompt="outfit-exact")
    assert settings.start_s == settings.reconnect_s == START_S
