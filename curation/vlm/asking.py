"""Questions to a vision-language model and its answers: prompts by name, pictures shown, replies read.

A prompt is part of what a measurement depends on: to change one, give it a new name. A question is a prompt
and the pictures of one or two people, which are made when it is sent. A reply is JSON, with how sure the
model was, read from an OpenAI-compatible response.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.models import Model
from curation.outfits.judge import JUDGED_REGIONS
from curation.settings.source import SourceSettings
from curation.settings.vlm import VlmSettings
from curation.vlm.pictures import JPEG_QUALITY, VERSION, Person, PersonPictures, data_url
from edges.model_server import MalformedResponseError, text_of

_WEIGHED = ("yes", "no")  # the words that p_yes weighs against each other
# How vocabularies write a blank, a tab and a line's end (GPT-2's, SentencePiece's): some servers pass it on.
_PIECES = str.maketrans("ĠĉĊ▁", "    ")


@dataclass(frozen=True)
class Prompt:
    """One question: its text, the key of the JSON answer, and the words it may have (none: free text)."""

    name: str
    text: str
    key: str
    words: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer: one key, nothing else."""
        value: dict[str, Any] = {"type": "string"}
        if self.words:
            value["enum"] = list(self.words)
        return {
            "type": "object",
            "properties": {self.key: value},
            "required": [self.key],
            "additionalProperties": False,
        }

    @property
    def opening(self) -> str:
        """The beginning of every answer."""
        return f'{{"{self.key}":"'


"""Name of a region → the piece of clothing that the prompt `region-NAME` asks about."""


def _region_prompt(name: str, what: str) -> Prompt:
    return Prompt(
        f"region-{name}",
        f"Two photos of one person follow. Look only at {what}. Decide whether it is exactly the same piece "
        "in both: kind, colour and pattern. If one photo has it and the other shows that part of the body "
        "without it, the answer is no. Say unclear when a photo does not show that part. "
        'Answer with JSON: {"same":"yes"}, {"same":"no"} or {"same":"unclear"}.',
        "same",
        ("yes", "no", "unclear"),
    )


PROMPTS = {
    prompt.name: prompt
    for prompt in (
        *(_region_prompt(name, what) for name, what in JUDGED_REGIONS.items()),
        Prompt(
            "outfit-exact",
            "Two photos of one person follow. Decide whether the full-body appearance is exactly the same: "
            "every visible garment, its colour and pattern, the shoes, and what is worn on top of them. "
            "Pose, view, light, background and facial expression do not matter. A garment that was added, "
            "taken off or exchanged means no. Say unclear when the photos do not show enough of both. "
            'Answer with JSON: {"same":"yes"}, {"same":"no"} or {"same":"unclear"}.',
            "same",
            ("yes", "no", "unclear"),
        ),
        Prompt("outfit-brief", "Same outfit?", "same", ("yes", "no")),
        Prompt(
            "paper-caption",
            "Describe in one or two sentences the facial expression, the pose, the action and the "
            "surroundings of the person in this photo. Say nothing about who the person is, their age, "
            "gender, ethnicity, hair, body or clothes, accessories included. "
            'Answer with JSON: {"caption":"..."}.',
            "caption",
        ),
        Prompt("caption-brief", "Describe the photo.", "caption"),
    )
}


@dataclass(frozen=True)
class Question:
    """`key` (64 hex digits) covers all that the answer depends on; `name` is for people to read."""

    key: str
    name: str
    people: tuple[Person, ...]


class Questions:
    """Makes questions of one pipeline, their keys and their pictures."""

    def __init__(self, settings: VlmSettings, model: Model, source: SourceSettings) -> None:
        self._settings = settings
        self.prompt: Prompt = PROMPTS[settings.prompt]  # type: ignore[attr-defined]
        canvas = (settings.canvas_px[0], settings.canvas_px[1])
        self._pictures = PersonPictures(source, canvas, settings.background, settings.margin)
        self._asked_with = json.dumps(
            [
                settings.backend,  # type: ignore[attr-defined]
                model.name,
                model.sha256,
                settings.dtype,
                settings.max_tokens,
                self.prompt.text,
                self.prompt.schema,
                [VERSION, JPEG_QUALITY, settings.canvas_px, settings.background, settings.margin],
            ],
            sort_keys=True,
        )

    def about(self, people: Sequence[Person]) -> Question:
        """The question that shows these people, in this order. Opens no photo.

        A picture is a function of the photo's bytes, the box, the mask and the settings, so the hash
        of these stands for the hash of its pixels.
        """
        digest = hashlib.sha256(self._asked_with.encode())
        for person in people:
            digest.update(self._pictures.recipe(person).encode())
        return Question(digest.hexdigest(), "|".join(p["person_id"] for p in people), tuple(people))

    def payload(self, question: Question, served_name: str) -> dict[str, Any]:
        """The body of a chat completion: text first, so that all prompts share their beginning.

        May be called from several threads. Raises OSError or ValueError where a photo cannot be read.
        """
        pictures = [
            {"type": "image_url", "image_url": {"url": data_url(self.jpeg(person))}}
            for person in question.people
        ]
        schema = {"name": self.prompt.name, "schema": self.prompt.schema, "strict": True}
        body: dict[str, Any] = {
            "model": served_name,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": self.prompt.text}, *pictures]}
            ],
            "temperature": 0,
            "max_tokens": self._settings.max_tokens,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        if self.prompt.words:
            body |= {"logprobs": True, "top_logprobs": 5}
        return body

    def jpeg(self, person: Person) -> bytes:
        """The picture of a person as JPEG."""
        return self._pictures.jpeg(person)


class MalformedError(ValueError):
    """The answer is not what the schema asks for; `str()` says how."""


@dataclass(frozen=True)
class Reply:
    """An answer: a word or a sentence. `p_yes` is 0 to 1 for questions with words; `error`: no answer."""

    answer: str | None
    p_yes: float | None = None
    error: str | None = None


def read_reply(prompt: Prompt, response: Any) -> Reply:
    """The answer of a chat completion. Raises MalformedError."""
    try:
        text = text_of(response)
    except MalformedResponseError as error:
        raise MalformedError(str(error)) from None
    choice = response["choices"][0]
    if choice.get("finish_reason") == "length":
        raise MalformedError(f"the answer is cut off at max_tokens: {shown(text)}")
    answer = read_answer(prompt, text)
    return Reply(answer, _p_yes(prompt, choice) if prompt.words else None)


def read_answer(prompt: Prompt, text: str) -> str:
    """The value of the prompt's key in a JSON answer. Raises MalformedError."""
    body = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        value = json.loads(body)[prompt.key]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MalformedError(f"the answer is not JSON with the key '{prompt.key}': {shown(text)}") from None
    if not isinstance(value, str) or not value.strip():
        raise MalformedError(f"'{prompt.key}' of the answer is no text: {shown(text)}")
    value = " ".join(value.split())
    if not prompt.words:
        return value
    if value.casefold() not in prompt.words:
        raise MalformedError(f"the answer is none of {', '.join(prompt.words)}: {shown(value)}")
    return value.casefold()


def shown(text: str) -> str:
    """The start of an answer, for a message of one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:60] + "…")


def weigh(log_yes: float, log_no: float) -> float:
    """p(yes) / (p(yes) + p(no)) from two log probabilities; six digits."""
    if log_yes == log_no == -math.inf:
        return 0.5
    return round(1 / (1 + math.exp(min(max(log_no - log_yes, -700.0), 700.0))), 6)


def _p_yes(prompt: Prompt, choice: dict[str, Any]) -> float:
    """From the token at which yes and no part; alternatives that fit both words do not count.

    What a token may hold depends on the tokenizer (`yes`, `"yes`, `y`), so tokens are compared by the
    answers that they can still become.
    """
    try:
        tokens = choice["logprobs"]["content"]
        before = ""
        for token in tokens:
            sums = {"yes": 0.0, "no": 0.0}
            text = before + token["token"]
            if len(_fitting(prompt, text)) <= 1:
                for other in token["top_logprobs"]:
                    fits = _fitting(prompt, before + other["token"])
                    if len(fits) == 1 and fits[0] in _WEIGHED:
                        sums[fits[0]] += math.exp(other["logprob"])
                return weigh(*(math.log(sums[word]) if sums[word] else -math.inf for word in _WEIGHED))
            before = text
    except (KeyError, TypeError, OverflowError):
        pass
    raise MalformedError("the response has no logprobs of its tokens")


def _fitting(prompt: Prompt, text: str) -> list[str]:
    """The words whose answer begins with `text`, or is begun by it; blanks and capitals do not count."""
    start = "".join(text.translate(_PIECES).split()).casefold()
    answers = {word: f'{prompt.opening}{word}"}}' for word in prompt.words}
    return [word for word, answer in answers.items() if answer.startswith(start) or start.startswith(answer)]
