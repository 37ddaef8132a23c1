"""The product's judge and captioner against a real vLLM, for each family of `vlm_families.py`.

One server a family, one family at a time, asked as `visual-persona-500k` asks. What is looked at: that the
first picture is the first one in the prompt, that yes and no are found whatever the tokenizer calls them,
that answers are JSON, that the model in process is as sure as the served one (of Gemma 3: with the causal
attention that vLLM computes on a CPU), and that pictures which are too large or too many fail alone, with the
server's words.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers.models.gemma3 import modeling_gemma3

from benchmarks.vlm_families import Family, write_family
from curation.engine import Endpoint, Job
from curation.errors import PersonaError, one_line
from curation.meters import CallCounter
from curation.models import Model
from curation.outfits.judge import Answer, PersonRow
from curation.pipeline_file import load_pipeline
from curation.settings import PipelineSettings
from curation.vlm.asking import Question, Questions, Reply
from curation.vlm.captioner import VlmCaptioner
from curation.vlm.client import VlmClient
from curation.vlm.judge import VlmJudge
from curation.vlm.server import ServerSpec, VllmServer
from edges.model_server import chat_url, request

PIPELINE, CARD = "visual-persona-500k", "qwen3-vl-8b"
_START_S = 600.0
_APART = 2e-3  # served and in process; both compute in float32
_TOO_LARGE_PX = 2240  # a side of a canvas: two of them are more than the context where size counts


@dataclass
class FamilyReport:
    """What one family did. `error`: why it could not run here; `faults`: which promises it broke.

    farthest_in_process   p(yes) of the same model in process, from the served one
    farthest_causal       the same with causal attention inside of pictures, of a family that has another
    """

    family: str
    ready_s: float = 0.0
    prompt_tokens: int = 0
    picture_tokens: tuple[int, ...] = ()
    yes_no: tuple[str, ...] = ()
    p_yes: tuple[float, ...] = ()
    farthest_in_process: float = 0.0
    farthest_causal: float | None = None
    captions: tuple[str, ...] = ()
    too_large: str = ""
    too_many: str = ""
    faults: list[str] = field(default_factory=list)
    error: str = ""


def rehearse_family(
    name: str,
    people: Sequence[PersonRow],
    source: str,
    work: Path,
    then: Callable[[str], None] | None = None,
) -> FamilyReport:
    """Starts the family's server, asks it as a run does, and stops it.

    people   three or more rows of a phase, with the columns of `curation.vlm.pictures`
    source   their collection, a folder
    work     where weights, logs and answers go
    then     what else the server is wanted for, by its URL
    """
    family = write_family(name, work / name)
    for run in work.glob(f"{name}-run-*"):  # of a start before: its answers would be taken for these
        shutil.rmtree(run)
    report = FamilyReport(name)
    model = Model(CARD, str(work / name), "0" * 64, "none")
    server = VllmServer(ServerSpec(model.path, CARD, dtype="float32"), str(work / f"{name}.log"))
    began = time.monotonic()
    try:
        server.start(_START_S, print)
    except PersonaError as error:
        report.error = str(error)
        return report
    report.ready_s = round(time.monotonic() - began, 1)
    try:
        _ask_everything(_Asked(family, model, server, source, work), people, report)
        if then is not None:
            then(server.url)
    except Exception as error:  # one family must not end the others
        report.faults.append(f"{type(error).__name__}: {one_line(error)}")
    finally:
        if not server.alive():
            report.faults.append(server.death())
        server.stop()
    return report


class _Asked:
    """The product's objects that ask, made from the pipeline with some keys changed."""

    def __init__(self, family: Family, model: Model, server: VllmServer, source: str, work: Path) -> None:
        self.family, self.model, self.server = family, model, server
        self._source, self._work, self._runs = source, work, 0

    def pipeline(self, *changes: str) -> PipelineSettings:
        keys = [f"{role}.{key}" for role in ("outfits.judge", "captions.by") for key in
                ("dtype=float32", "retries=0", "in_flight=4")]  # fmt: skip
        return load_pipeline(
            "pipelines.yaml", PIPELINE, [*keys, "source.kind=folder", f"source.path={self._source}", *changes]
        )

    def judge(self, *changes: str) -> VlmJudge:
        """A judge without memory of any other."""
        pipeline = self.pipeline(*(f"outfits.judge.{change}" for change in changes))
        judge = VlmJudge(pipeline.outfits.judge, {CARD: self.model})
        judge.join_run(self._job(pipeline), "outfits", CallCounter(None))
        return judge

    def captioner(self, *changes: str) -> VlmCaptioner:
        pipeline = self.pipeline(*(f"captions.by.{change}" for change in changes))
        captioner = VlmCaptioner(pipeline.captions.by, {CARD: self.model})
        captioner.join_run(self._job(pipeline), "captions", CallCounter(None))
        return captioner

    def questions(self) -> tuple[Questions, VlmClient]:
        """What makes the judge's questions, and what sends them."""
        pipeline = self.pipeline()
        questions = Questions(pipeline.outfits.judge, self.model, pipeline.source)
        return questions, VlmClient(pipeline.outfits.judge, questions, self.server.url)

    def _job(self, pipeline: PipelineSettings) -> Job:
        self._runs += 1
        run = str(self._work / f"{self.family.name}-run-{self._runs}")
        ends = dict.fromkeys(("judge", "captioner"), Endpoint(self.server.url))
        return Job(run, pipeline, {CARD: self.model}, None, ends)


def _ask_everything(asked: _Asked, people: Sequence[PersonRow], report: FamilyReport) -> None:
    pairs = list(itertools.permutations(people[:3], 2))
    answers = asked.judge().ask(pairs)
    report.faults += sorted({f"judge: {answer.error}" for answer in answers if answer.error})
    report.p_yes = tuple(answer.score for answer in answers if answer.score is not None)
    if len(set(report.p_yes)) != len(pairs):
        report.faults.append("of two pictures in both orders not every answer is another one")
    _see_tokens(asked, pairs[0], report)
    report.farthest_in_process = off = _farthest(answers, asked, pairs)
    if asked.family.sees_ahead:
        # -1: a token that is in no picture, so that none attends to what follows it.
        with mock.patch.object(
            modeling_gemma3, "get_block_sequence_ids_for_mask", lambda kinds, **_: torch.full_like(kinds, -1)
        ):
            report.farthest_causal = _farthest(answers, asked, pairs)
        off = min(off, report.farthest_causal)
    if off > _APART:
        report.faults.append(f"in process p(yes) is {off} off")
    captions = asked.captioner("max_tokens=48").caption_each(people[:2])
    report.captions = tuple(caption.text or str(caption.error) for caption in captions)
    _see_limits(asked, people, answers[0], report)


def _farthest(served: Sequence[Answer], asked: _Asked, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> float:
    here = asked.judge("backend=transformers", "batch_size=2").ask(pairs)
    return round(max(map(_apart, served, here)), 6)


def _apart(a: Answer, b: Answer) -> float:
    return 1.0 if a.score is None or b.score is None else abs(a.score - b.score)


def _see_tokens(asked: _Asked, pair: tuple[PersonRow, PersonRow], report: FamilyReport) -> None:
    """The prompt's layout with a tall and a square picture, and the tokens at which yes and no part."""
    questions, _ = asked.questions()
    body = questions.payload(questions.about(pair), CARD)
    answer = _post(chat_url(asked.server.url), body)
    report.prompt_tokens = answer["usage"]["prompt_tokens"]
    told = json.loads(answer["choices"][0]["message"]["content"])
    if list(told) != [questions.prompt.key] or told[questions.prompt.key] not in questions.prompt.words:
        report.faults.append(f"the answer is another JSON: {told}")
    for token in answer["choices"][0]["logprobs"]["content"]:
        words = [other["token"] for other in token["top_logprobs"] if other["logprob"] > -100]
        if any("yes" in word for word in words) and any("no" in word for word in words):
            report.yes_no = tuple(words)
    runs = []
    for tall_first in (True, False):
        shown = [(448, 896), (448, 448)] if tall_first else [(448, 448), (448, 896)]
        runs.append(_picture_runs(asked, pair, shown))
    report.picture_tokens = tuple(runs[0])
    if runs[0] != runs[1][::-1]:
        report.faults.append(f"pictures do not stand in the prompt as they were sent: {runs}")


def _picture_runs(
    asked: _Asked, pair: tuple[PersonRow, PersonRow], shown: Sequence[tuple[int, int]]
) -> list[int]:
    """How many tokens each picture has in the prompt, in its order, if they are shown at these sizes."""
    content: list[dict[str, Any]] = []
    for person, (wide, high) in zip(pair, shown, strict=True):
        pipeline = asked.pipeline(f"outfits.judge.canvas_px=[{wide}, {high}]")
        questions = Questions(pipeline.outfits.judge, asked.model, pipeline.source)
        content += questions.payload(questions.about([person]), CARD)["messages"][0]["content"]
    body = {"model": CARD, "messages": [{"role": "user", "content": content}]}
    ids = _post(f"{asked.server.url}/tokenize", {**body, "return_token_strs": True})["token_strs"]
    # A picture's rows or tiles may have marks between them; the text between two pictures is longer.
    runs, since = [], None
    for place, token in enumerate(ids):
        if token == asked.family.picture_token:
            if since is None or place - since > 8:
                runs.append(0)
            runs[-1] += 1
            since = place
    return runs


def _see_limits(asked: _Asked, people: Sequence[PersonRow], first: Answer, report: FamilyReport) -> None:
    """Pictures that are too large, and too many; and an ordinary question after each."""
    large = f"canvas_px=[{_TOO_LARGE_PX}, {_TOO_LARGE_PX}]"
    pair = (people[0], people[1])
    answer = asked.judge(large).ask([pair])[0]
    report.too_large = answer.error or f"answered: p_yes {answer.score}"
    questions, client = asked.questions()
    reply = client.ask([questions.about(people[:3])], _Deaf())[0]
    report.too_many = reply.error or "answered"
    if reply.error is None:
        report.faults.append("three pictures in one question were answered")
    after = asked.judge().ask([pair])[0]
    if _apart(after, first) > _APART:
        report.faults.append(f"after refusals an ordinary question has another answer: {after}")


class _Deaf:
    """A Listener."""

    def asking(self, question: Question) -> None:
        """Counts nothing."""

    def answered(self, question: Question, reply: Reply) -> None:
        """Remembers nothing."""


def _post(url: str, body: dict[str, Any]) -> Any:
    return json.loads(request(url, None, 120.0, json.dumps(body).encode()))
