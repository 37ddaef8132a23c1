"""Evaluation: scores with intervals, what is absent is said, and a rerun computes nothing."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from persona import main
from tests.drawn_pairs import write_people
from tests.train_tiny import training
from training.evaluation.cases import cases_of, people_of
from training.evaluation.embedding_scores import FaceSimilarity
from training.evaluation.results import bootstrap, harmonic
from training.evaluation.run import evaluate
from training.evaluation.settings import EvaluationSettings, VlmQuestion
from training.evaluation.vlm_scores import score_of
from training.generation.pipeline import PersonaPipeline
from training.ranks import Ranks

PROMPTS = ["A woman waves.", "A woman sits in a park."]


class Server(ThreadingHTTPServer):
    """Answers every question with `answer`, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.answer = "8, because of the hat"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = json.dumps({"choices": [{"message": {"content": self.server.answer}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("held-out") / "shards")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    training(folder, Ranks(), steps=1).run()
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    BitImageProcessor(size={"shortest_edge": 28}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ids = {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    picture = {"image_size": 28, "patch_size": 14}
    config = CLIPConfig(text_config={**size, **ids}, vision_config={**size, **picture}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    side = {"height": 28, "width": 28}
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def settings(**scores: Any) -> EvaluationSettings:
    return EvaluationSettings.model_validate(
        {
            "prompts": PROMPTS,
            "people": 3,
            "height_px": 64,
            "width_px": 64,
            "sampling": {"steps": 2, "guidance": 2.0},
            "scores": scores,
            "resamples": 200,
        }
    )


def quiet(text: str) -> None:
    """Says nothing."""


def brightness(files: list[Path]) -> list[np.ndarray | None]:
    """A face embedder of the kind that the front door gives: files to unit vectors, or none."""
    return [None if number == 0 else np.array([0.6, 0.8], np.float32) for number in range(len(files))]


def test_scores_are_measured_and_a_rerun_computes_nothing(
    dataset: Path, run: Path, dino: Path, server: Server, tmp_path: Path
) -> None:
    wanted = settings(dino=str(dino), face=True, vlm={"endpoint": server.endpoint, "model": "judge"})
    faces = FaceSimilarity(brightness, "brightness")  # type: ignore[arg-type]
    first = evaluate(
        wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, faces, quiet
    )
    found = first.to_json()
    assert found["scores"]["vlm_identity"]["mean"] == 8
    assert found["scores"]["vlm_harmonic"] == pytest.approx(
        {"mean": 8, "low": 8, "high": 8, "people": 3, "pictures": 6, "unanswered": 0}
    )
    # The first person's reference shows no face.
    assert found["scores"]["face"] == {
        "mean": 1.0, "low": 1.0, "high": 1.0, "people": 2, "pictures": 4, "unanswered": 2,
    }  # fmt: skip
    assert -1 <= found["scores"]["dino"]["low"] <= found["scores"]["dino"]["mean"] <= 1
    assert found["absent"] == {
        "clip_t": "scores.clip names no folder",
        "clip_i": "scores.clip names no folder",
    }
    assert len(server.asked) == 12
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 3 + 6
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "scores.clip names no folder" in page

    def nobody() -> PersonaPipeline:
        raise AssertionError("a picture was made again")

    faces = FaceSimilarity(lambda files: pytest.fail("a face was sought again"), "brightness")
    again = evaluate(wanted, run, nobody, str(dataset), tmp_path, faces, quiet)
    assert again.to_json() == found
    assert len(server.asked) == 12


def test_clip_compares_with_prompt_and_reference(
    dataset: Path, run: Path, clip: Path, tmp_path: Path
) -> None:
    wanted = settings(clip=str(clip)).model_copy(update={"prompts": ("A woman waves. " * 40,), "people": 2})
    found = evaluate(
        wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None, quiet
    )
    assert "clip_t" not in found.absent
    scores = found.scores["clip_t"] + found.scores["clip_i"]
    assert len(scores) == 4
    assert all(score is not None and -1 <= score <= 1 for score in scores)


def test_a_folder_that_is_no_model_is_absent_with_its_name(dataset: Path, run: Path, tmp_path: Path) -> None:
    wanted = settings(dino=str(tmp_path), clip="/nowhere")
    found = evaluate(
        wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None, quiet
    )
    assert found.absent["dino"] == f"{tmp_path}: no config.json: not a model's folder"
    assert found.absent["clip_t"].startswith("/nowhere")


def test_another_prompt_makes_only_its_own_pictures(dataset: Path, run: Path, tmp_path: Path) -> None:
    def made(wanted: EvaluationSettings) -> int:
        evaluate(
            wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None, quiet
        )
        return len(list((tmp_path / "pictures").iterdir()))

    assert made(settings()) == 6
    assert made(settings().model_copy(update={"prompts": (PROMPTS[0], "A woman runs.")})) == 9


@pytest.mark.parametrize(
    ("regions", "answer"),
    [(["head", "torso", "legs", "shoes"], True), (["full_body"], True), (["head", "torso"], False)],
)
def test_pictures_of_some_regions_that_older_versions_made_of_more_are_no_answer(
    regions: list[str], answer: bool, dataset: Path
) -> None:
    wanted = settings().model_copy(update={"regions": tuple(regions)})
    case = cases_of(wanted, "weights", people_of(str(dataset), 1))[0]
    about = {
        "weights": "weights", "regions": regions, "size": [64, 64],
        "sampling": wanted.sampling.model_dump(mode="json"),
        "person": case.person.digest, "prompt": case.prompt, "seed": case.seed,
    }  # fmt: skip
    older = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    assert (case.name == older) is answer


def test_a_server_that_is_not_there_is_said_and_asked_again_when_it_is(
    dataset: Path, run: Path, server: Server, tmp_path: Path
) -> None:
    def scored(endpoint: str) -> dict[str, Any]:
        wanted = settings(vlm={"endpoint": endpoint, "model": "judge", "timeout_s": 2, "retries": 0})
        return evaluate(
            wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None, quiet
        ).to_json()

    absent = scored("http://127.0.0.1:1/v1")["absent"]
    assert "http://127.0.0.1:1/v1/chat/completions" in absent["vlm_identity"]
    assert absent["face"] == "scores.face is off"
    assert scored(server.endpoint)["scores"]["vlm_text"]["mean"] == 8


def test_the_question_shows_reference_and_picture_and_says_the_prompt(
    dataset: Path, run: Path, server: Server, tmp_path: Path
) -> None:
    wanted = settings(vlm={"endpoint": server.endpoint, "model": "judge"})
    evaluate(wanted, run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None, quiet)
    contents = [asked["messages"][0]["content"] for asked in server.asked]
    texts = [content[-1]["text"] for content in contents]
    assert sum(PROMPTS[0] in text for text in texts) == 3
    assert sorted(len(content) for content in contents) == [2] * 6 + [3] * 6
    assert all(asked["temperature"] == 0 for asked in server.asked)


@pytest.mark.parametrize(
    ("answer", "kind", "score"),
    [
        ("7", "score", 7),
        ("Score: 10.", "score", 10),
        ("11", "score", None),
        ("good", "score", None),
        ("Yes, both", "yes_no", 10),
        ("no", "yes_no", 0),
        ("maybe", "yes_no", None),
        ('{"score": 8}', "score", 8),
        ('{"same": "no"}', "yes_no", 0),
        ("none of it", "yes_no", None),
        ("I see no difference", "yes_no", None),
    ],
)
def test_an_answer_is_a_number_or_none(answer: str, kind: Any, score: float | None) -> None:
    assert score_of(answer, VlmQuestion(text="?", pictures=("generated",), answer=kind)) == score


def test_the_interval_resamples_people_not_pictures() -> None:
    alike = bootstrap({"a": [1.0] * 50, "b": [0.0]}, 2000)
    assert (alike.mean, alike.low, alike.high, alike.people, alike.pictures) == (0.5, 0.0, 1.0, 2, 51)
    random = np.random.default_rng(0)
    many = bootstrap({str(n): [float(random.normal(3, 1))] for n in range(100)}, 2000)
    assert many.low < many.mean < many.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.1, rel=0.2)
    with pytest.raises(ValueError, match="nothing was scored"):
        bootstrap({"a": []}, 100)


def test_a_picture_that_fails_one_of_both_questions_has_a_harmonic_mean_of_zero() -> None:
    assert harmonic(8, 0) == 0
    assert harmonic(4, 8) == pytest.approx(16 / 3)
    assert harmonic(None, 8) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["best", "--checkpoint", "{run}"], "unknown evaluation 'best': there are demo"),
        (["demo", "--checkpoint", "/nowhere"], "/nowhere"),
        (["demo", "--checkpoint", "{run}", "--set", "people=99"], "12 people, the evaluation wants 99"),
        (["demo", "--checkpoint", "{run}", "--set", "seeds=[1,1]"], "prompts and seeds must each differ"),
        (["demo", "--checkpoint", "{run}", "--set", "height=3"], "did you mean 'height_px'"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], message: str, dataset: Path, run: Path, tmp_path: Path, capsys
) -> None:
    said = [word.replace("{run}", str(run)) for word in words]
    shared = ["--shards", str(dataset), "--out", str(tmp_path / "out"), "--set", "scores.face=false"]
    assert main(["evaluate", *said, *shared]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_last_weights_are_not_judged_by_pictures_of_their_averages(
    dataset: Path, run: Path, tmp_path: Path
) -> None:
    stated = []
    for last in (False, True):
        evaluate(
            *(settings(), run, lambda: PersonaPipeline.from_pretrained(run), str(dataset), tmp_path, None),
            quiet,
            last=last,
        )
        stated.append(json.loads((tmp_path / "results.json").read_text())["model"])
    assert stated[0] != stated[1]
    assert len(list((tmp_path / "pictures").iterdir())) == 12
