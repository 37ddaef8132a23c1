"""Judge and captioner against servers that misbehave: a reason for every row, and never a hang."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from curation.outfits.judge import Answer
from curation.run_tables import AnswerFiles
from curation.storage import list_names
from curation.vlm.asking import PROMPTS, MalformedError, Reply, read_reply
from curation.vlm.session import AnswerCache, merge_answers
from tests.drawn_pipeline import (
    ROOT,
    asked,
    command,
    counts_of,
    curate,
    environment,
    persona,
    rows_of,
    write_config,
)
from tests.drawn_pipeline import settings as drawn_settings
from tests.drawn_questions import JUDGE, judge_at, pairs_of, people_of
from tests.fake_vlm import FakeVlm, completion, friendly, says, serving


@pytest.fixture
def fake() -> Iterator[FakeVlm]:
    with serving(FakeVlm()) as server:
        yield server


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """20 pairs of people."""
    return pairs_of(people_of(tmp_path_factory.mktemp("photos") / "photos", 8), 20)


def within(seconds: float, ask: Callable[[], list[Answer]]) -> list[Answer]:
    began = time.monotonic()
    answers = ask()
    assert time.monotonic() - began < seconds
    return answers


def choice(tokens: list[str], top: list[dict[str, float]]) -> dict[str, Any]:
    """A completion whose tokens had these alternatives, as {token: log probability}."""
    content = [
        {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in others.items()]}
        for token, others in zip(tokens, top, strict=True)
    ]
    return completion("".join(tokens), content)


@pytest.mark.parametrize(
    "response",
    [
        choice(['{"same":"', "yes", '"}'], [{'{"same":"': 0.0}, {"yes": -0.5, "no": -1.5}, {'"}': 0.0}]),
        choice(['{"same": ', '"yes', '"}'], [{'{"same": ': 0.0}, {'"yes': -0.5, '"no': -1.5}, {'"}': 0.0}]),
        choice(
            ['{"same":', '"', "y", "es", '"}'],
            [{}, {'"': -0.1, '"no': -9999.0}, {"y": -0.5, "n": -1.5, "?": -3.0}, {"es": 0.0}, {}],
        ),
    ],
)
def test_how_sure_the_model_is_does_not_depend_on_how_its_tokens_are_cut(response: dict[str, Any]) -> None:
    reply = read_reply(PROMPTS["outfit-brief"], response)
    assert reply.answer == "yes"
    assert reply.p_yes == pytest.approx(0.7311, abs=1e-4)


@pytest.mark.parametrize(
    "response",
    [
        completion('{"same":"maybe"}'),
        completion('{"same":'),
        completion("yes"),
        completion('["yes"]'),
        completion('{"other":"yes"}'),
        completion('{"same":"yes"}'),  # without logprobs
        {"choices": []},
        {},
        [],
        None,
    ],
)
def test_an_answer_of_another_form_is_no_answer(response: Any) -> None:
    with pytest.raises(MalformedError):
        read_reply(PROMPTS["outfit-brief"], response)


def test_same_is_decided_by_the_cut_and_unclear_is_neither(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path
) -> None:
    fake.behaviour = lambda n, request: (200, says("yes", 0.6))
    assert judge_at(fake.url, tmp_path).ask(pairs[:1])[0] == Answer(True, 0.6, 0.5, "says yes")
    assert judge_at(fake.url, tmp_path, cut=0.7).ask(pairs[:1])[0] == Answer(False, 0.6, 0.7, "says yes")
    assert sum(fake.asked.values()) == 1  # a moved cut asks nothing
    fake.behaviour = lambda n, request: (200, says("unclear", 0.6))
    answer = judge_at(fake.url, tmp_path, prompt="outfit-exact").ask(pairs[:1])[0]
    assert (answer.same, answer.error) == (None, None)


def test_no_more_requests_are_in_flight_than_allowed(fake: FakeVlm, pairs: list[Any], tmp_path: Path) -> None:
    def slow(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.05)
        return friendly(n, request)

    fake.behaviour = slow
    assert all(answer.same for answer in judge_at(fake.url, tmp_path, in_flight=4).ask(pairs))
    assert 2 <= fake.most_in_flight <= 4


def test_an_absent_server_fails_every_row_with_the_reason(pairs: list[Any], tmp_path: Path) -> None:
    judge = judge_at("http://127.0.0.1:9", tmp_path, reconnect_s=3.0)
    answers = within(10, lambda: judge.ask(pairs))
    assert all(answer.same is None and "no server at" in str(answer.error) for answer in answers)
    again = within(3, lambda: judge.ask(pairs))  # one that is known to be gone is not waited for again
    assert all(answer.error for answer in again)


def test_a_slow_server_fails_the_row_and_not_the_run(fake: FakeVlm, pairs: list[Any], tmp_path: Path) -> None:
    def slow(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(2)
        return friendly(n, request)

    fake.behaviour = slow
    judge = judge_at(fake.url, tmp_path, timeout_s=0.2, retries=1)
    answers = within(6, lambda: judge.ask(pairs[:5]))
    assert {answer.error for answer in answers} == {"no answer in 0.2 s (2 attempts)"}


def test_errors_that_pass_are_retried(fake: FakeVlm, pairs: list[Any], tmp_path: Path) -> None:
    first = iter([500, 503, 429])

    def stumbling(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        status = next(first, None)
        return (status, {"error": "busy"}) if status else friendly(n, request)

    fake.behaviour = stumbling
    assert all(answer.same for answer in judge_at(fake.url, tmp_path).ask(pairs))
    assert sum(fake.asked.values()) == len(pairs) + 3


def test_a_server_that_only_answers_500_fails_every_row_with_its_words(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path
) -> None:
    fake.behaviour = lambda n, request: (500, {"error": {"message": "CUDA\nout of memory"}})
    answers = within(15, lambda: judge_at(fake.url, tmp_path).ask(pairs))
    assert {answer.error for answer in answers} == {"HTTP 500: CUDA out of memory (3 attempts)"}
    assert set(fake.asked.values()) == {3}


def test_a_refused_request_is_final_and_its_pictures_are_not_in_the_message(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path
) -> None:
    def refusing(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        return 400, {"error": {"message": f"prompt too long: {json.dumps(request)}"}}

    fake.behaviour = refusing
    answers = judge_at(fake.url, tmp_path).ask(pairs)
    assert set(fake.asked.values()) == {1}
    for answer in answers:
        assert str(answer.error).startswith("HTTP 400: prompt too long")
        assert len(str(answer.error)) < 350
        assert not re.search(r"[A-Za-z0-9+/]{80}", str(answer.error))


@pytest.mark.parametrize(
    "body", [b"<html>oops</html>", b'{"choices": [{"message": {"content": "   "}}]}', b"\xff"]
)
def test_malformed_answers_are_retried_and_then_fail_the_row(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path, body: bytes
) -> None:
    fake.behaviour = lambda n, request: (200, body) if n < 1 else friendly(n, request)
    assert judge_at(fake.url, tmp_path / "a").ask(pairs[:2])[0].same is True
    fake.behaviour = lambda n, request: (200, body)
    answer = judge_at(fake.url, tmp_path / "b", retries=1).ask(pairs[2:3])[0]
    assert answer.same is None
    assert "(2 attempts)" in str(answer.error)


def test_a_wrong_model_name_fails_the_row_in_the_servers_words(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path
) -> None:
    fake.name = "other"
    assert "`tiny` does not exist" in str(judge_at(fake.url, tmp_path).ask(pairs[:1])[0].error)


def test_a_photo_that_is_gone_fails_its_own_pair_only(fake: FakeVlm, tmp_path: Path) -> None:
    people = people_of(tmp_path / "photos", 4)
    os.remove(people[0]["uri"])
    answers = judge_at(fake.url, tmp_path / "run").ask([(people[1], people[0]), (people[2], people[3])])
    assert "FileNotFoundError" in str(answers[0].error)
    assert answers[1].same is True


def test_equal_questions_are_asked_once_and_errors_are_not_remembered(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path
) -> None:
    fake.behaviour = lambda n, request: (400, {})
    assert all(answer.error for answer in judge_at(fake.url, tmp_path).ask(pairs))
    fake.behaviour = friendly
    fake.asked.clear()
    assert all(
        answer.same for answer in judge_at(fake.url, tmp_path, calls=tmp_path / "calls").ask(pairs + pairs)
    )
    assert sorted(fake.asked.values()) == [1] * len(pairs)
    assert len(list(asked(tmp_path / "calls"))) == len(pairs)
    fake.asked.clear()
    assert all(answer.same for answer in judge_at("http://127.0.0.1:9", tmp_path).ask(pairs))
    assert not fake.asked


@pytest.mark.parametrize(
    "change",
    [{"canvas_px": [56, 112]}, {"background": "keep"}, {"margin": 0.1}, {"prompt": "outfit-exact"}],
)
def test_what_changes_the_question_asks_again(
    fake: FakeVlm, pairs: list[Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    judge_at(fake.url, tmp_path).ask(pairs[:3])
    judge_at(fake.url, tmp_path, **change).ask(pairs[:3])
    assert sum(fake.asked.values()) == 6


_ASK = """
import sys
from pathlib import Path
from tests.drawn_questions import judge_at, pairs_of, people_of
run = Path(sys.argv[2])
judge_at(sys.argv[1], run, in_flight=4).ask(pairs_of(people_of(run / "photos", 12), 60))
"""


def test_a_killed_worker_has_its_answers_remembered(fake: FakeVlm, tmp_path: Path) -> None:
    def steady(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.02)
        return friendly(n, request)

    fake.behaviour = steady
    run = tmp_path / "run"
    worker = subprocess.Popen([sys.executable, "-c", _ASK, fake.url, str(run)], cwd=ROOT, env=environment())
    while sum(fake.asked.values()) < 25:
        assert worker.poll() is None
        time.sleep(0.01)
    worker.kill()
    worker.wait()
    before = sum(fake.asked.values())
    assert before < 60
    time.sleep(0.2)
    pairs = pairs_of(people_of(run / "photos", 12), 60)
    assert all(answer.same for answer in judge_at(fake.url, run).ask(pairs))
    # At most the requests in flight at the kill had no answer, and are asked again.
    assert len(fake.asked) == 60
    assert sum(fake.asked.values()) <= 60 + 4


def test_a_line_cut_off_in_the_memory_is_no_answer(tmp_path: Path) -> None:
    cache = AnswerCache(AnswerFiles(str(tmp_path)))
    cache.put("ab" * 32, Reply("yes", 0.75))
    cache.put("cd" * 32, Reply("no", 0.25))
    file = next((tmp_path / "_answers").iterdir())
    file.write_bytes(file.read_bytes()[:-4])
    other = AnswerCache(AnswerFiles(str(tmp_path)))
    other.refresh()
    assert other.get("ab" * 32) == Reply("yes", 0.75)
    assert other.get("cd" * 32) is None


@pytest.mark.parametrize("place", ["local", "s3"])
def test_answers_of_many_workers_are_read_by_all_and_merged(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = str(tmp_path) if place == "local" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    keys = [f"{number:064x}" for number in range(100)]
    for key in keys:
        worker = AnswerCache(AnswerFiles(folder))
        worker.put(key, Reply("yes", 1.0))
        worker.flush()
    merge_answers(AnswerFiles(folder))
    assert len(list_names(f"{folder}/_answers")) == 1
    reader = AnswerCache(AnswerFiles(folder))
    reader.refresh()
    assert all(reader.get(key) == Reply("yes", 1.0) for key in keys)


# The whole command, with a server at the network's edge.


def vlm_pipeline(photos: Path, weights: Path, endpoint: str | None, **changes: Any) -> dict[str, Any]:
    """The drawn pipeline with a vLLM server as judge and captioner."""
    (weights / "m").mkdir(parents=True, exist_ok=True)
    (weights / "m" / "config.json").write_text("{}")
    pipeline = drawn_settings(photos)
    card = {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}
    pipeline["models"] = {"path": str(weights), "cards": {"tiny": card}}
    shared = {"endpoint": endpoint, "retries": 1, "reconnect_s": 1.0, "start_s": 20.0, **changes}
    pipeline["outfits"]["judge"] = {**JUDGE, **shared}
    pipeline["captions"] = {
        "by": {**JUDGE, **shared, "prompt": "caption-brief", "canvas_px": [224, 224]},
    }
    return pipeline


def test_a_rerun_and_a_moved_cut_ask_the_server_nothing(fake: FakeVlm, photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "p.yaml", vlm_pipeline(photos, tmp_path / "weights", fake.url))
    run = tmp_path / "run"
    first = curate(config, run)
    requests = sum(fake.asked.values())
    assert set(fake.asked.values()) == {1}
    calls = first["model_calls_this_time"]
    assert calls["outfits"] + calls["captions"] == requests > 60
    assert {row["photo_caption"] for row in rows_of(run / "captions")} == {"A person is standing in a park."}
    lower = curate(
        config, run, "--set", "outfits.judge.cut=0.4", "--set", "outfits.judge.endpoint=http://127.0.0.1:9"
    )
    assert lower["model_calls_this_time"] == {}
    assert sum(fake.asked.values()) == requests


def test_retry_takes_up_what_the_server_failed_on_and_asks_nothing_else_again(
    fake: FakeVlm, photos: Path, tmp_path: Path
) -> None:
    pipeline = vlm_pipeline(photos, tmp_path / "weights", fake.url)
    pipeline["engine"]["max_failed_share"] = 1
    config = write_config(tmp_path / "p.yaml", pipeline)
    refused: set[str] = set()

    def sometimes(n: int, request: dict[str, Any]) -> tuple[int, Any]:
        key = hashlib.sha256(json.dumps(request).encode()).hexdigest()
        if int(key, 16) % 3:
            return friendly(n, request)
        refused.add(key)
        return 400, {"error": "no"}

    fake.behaviour = sometimes
    before = counts_of(curate(config, tmp_path / "run"))
    failures = before["outfit"][3] + before["captions"][3]
    assert failures > 0
    fake.behaviour = friendly
    answered = set(fake.asked)
    done = persona("retry", tmp_path / "run", "--engine", "inline", "--json")
    assert done.returncode == 0, done.stderr
    assert "failed measurements are taken up again" in done.stderr
    after = counts_of(json.loads(done.stdout.splitlines()[-1]))
    assert after["outfit"][3] == after["captions"][3] == 0
    assert max(fake.asked.values()) == 2  # those that were refused before, and no other
    assert all(fake.asked[key] == 1 for key in answered - refused)


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("tiny", "http://127.0.0.1:9", "outfits.judge.endpoint: http://127.0.0.1:9 does not answer"),
        ("other", None, "has no model 'tiny', it has: other"),
    ],
)
def test_a_server_that_cannot_be_used_stops_the_run_with_one_line(
    fake: FakeVlm, photos: Path, tmp_path: Path, name: str, url: str | None, says: str
) -> None:
    fake.name = name
    config = write_config(tmp_path / "p.yaml", vlm_pipeline(photos, tmp_path / "weights", url or fake.url))
    done = persona(
        "curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline", "--quiet"
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert says in done.stderr


# The run's own server. `python -m vllm.entrypoints.openai.api_server` finds the fake instead of vLLM.


def fake_vllm(folder: Path, program: str) -> dict[str, str]:
    """An environment in which vLLM's server is another program."""
    module = folder / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    for package in (folder / "vllm", module.parent.parent, module.parent):
        (package / "__init__.py").touch()
    module.write_text(program)
    return {**environment(), "PYTHONPATH": f"{folder}:{ROOT}"}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Running servers whose command names the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words and "api_server" in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def eventually(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


GOOD = "from tests.fake_vlm import main\nmain()\n"


def test_a_run_starts_one_server_for_judge_and_captioner_and_stops_it(
    photos: Path, tmp_path: Path, ray_address: str
) -> None:
    """The workers are those of a cluster, so the server listens where they reach it."""
    config = write_config(tmp_path / "p.yaml", vlm_pipeline(photos, tmp_path / "weights", None))
    run = tmp_path / "run"
    words = command(
        "curate", "drawn", "--config", config, "--out", run, "--ray-address", ray_address, "--json"
    )
    program = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n{GOOD}"
    where = fake_vllm(tmp_path / "path", program)
    for _ in range(2):  # the second run must ask nothing, and starts nothing
        done = subprocess.run(words, cwd=ROOT, env=where, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert counts_of(json.loads(done.stdout.splitlines()[-1]))["captions"][1] == 60
        assert processes_of(tmp_path) == []
    assert (tmp_path / "starts").read_text() == "x"
    assert "serving at" in (tmp_path / "run" / "vllm.log").read_text()


def test_a_server_of_the_run_that_dies_is_started_again_and_no_row_is_lost(
    photos: Path, tmp_path: Path
) -> None:
    pipeline = vlm_pipeline(photos, tmp_path / "weights", None, reconnect_s=20.0, in_flight=2)
    config = write_config(tmp_path / "p.yaml", pipeline)
    program = (
        "import os, time\nfrom pathlib import Path\nimport tests.fake_vlm as fake\n"
        f"lives = Path({str(tmp_path / 'lives')!r})\n"
        "friendly, n = fake.friendly, [0]\n"
        "first = not lives.exists()\nlives.touch()\n"
        "def dying(before, request):\n"
        "    n[0] += 1\n"
        "    if first and n[0] == 20:\n        os._exit(9)\n"
        "    return friendly(before, request)\n"
        "class Dying(fake.FakeVlm):\n"
        "    def __init__(self, name):\n        super().__init__(name, dying)\n"
        "fake.FakeVlm = Dying\nfake.main()\n"
    )
    where = fake_vllm(tmp_path / "path", program)
    words = command(
        "curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline", "--json"
    )
    done = subprocess.run(words, cwd=ROOT, env=where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "it is started again" in done.stderr
    stages = counts_of(json.loads(done.stdout.splitlines()[-1]))
    assert stages["captions"] == (60, 60, 0, 0)
    assert stages["outfit"][3] == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_is_ended_its_server_ends_too(
    photos: Path, tmp_path: Path, how: signal.Signals
) -> None:
    config = write_config(
        tmp_path / "p.yaml", vlm_pipeline(photos, tmp_path / "weights", None, timeout_s=60.0)
    )
    program = (
        "import time, tests.fake_vlm as fake\n"
        "class Slow(fake.FakeVlm):\n"
        "    def __init__(self, name):\n"
        "        super().__init__(name, lambda n, request: (time.sleep(60), (200, {}))[1])\n"
        "fake.FakeVlm = Slow\nfake.main()\n"
    )
    words = command(
        "curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline", "--quiet"
    )
    # A shell that starts the tests in its background has them ignore SIGINT, and their children too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(
        words, cwd=ROOT, env=fake_vllm(tmp_path / "path", program), stderr=subprocess.DEVNULL
    )
    signal.signal(signal.SIGINT, before)
    log = tmp_path / "run" / "vllm.log"
    eventually(lambda: log.exists() and "serving at" in log.read_text(), 60)
    assert processes_of(tmp_path)
    run.send_signal(how)
    run.wait(55)  # less than what a request may take
    eventually(lambda: processes_of(tmp_path) == [])


@pytest.mark.parametrize(
    ("program", "says", "kind"),
    [
        ("raise ValueError('the model has no chat template')\n", "no chat template", "ServerStartError"),
        (
            "raise ImportError('libcudart.so.13: cannot open shared object file')\n",
            "libcudart",
            "VllmUnavailableError",
        ),
        ("import os\nos.kill(os.getpid(), 4)\n", "exit code 132", "VllmUnavailableError"),
        ("import time\ntime.sleep(60)\n", "not ready after 2 s", "ServerStartError"),
    ],
)
def test_a_server_that_does_not_start_is_one_line_with_its_error_and_its_log(
    tmp_path: Path, program: str, says: str, kind: str
) -> None:
    where = fake_vllm(tmp_path / "path", program)
    start = (
        "import sys\nfrom curation.vlm.server import *\n"
        "server = VllmServer(ServerSpec(sys.argv[1], 'tiny'), sys.argv[2])\n"
        "try:\n    server.start(2, lambda line: print(line, file=sys.stderr), 0.5)\n"
        "except ServerStartError as error:\n    print(type(error).__name__, error)\n"
    )
    words = [sys.executable, "-c", start, str(tmp_path), str(tmp_path / "vllm.log")]
    done = subprocess.run(words, cwd=ROOT, env=where, capture_output=True, text=True, timeout=60)
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(kind)
    assert says in lines[0]
    assert str(tmp_path / "vllm.log") in lines[0]
    assert processes_of(tmp_path) == []
