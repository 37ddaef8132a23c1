"""What a model answered: its JSON, and how sure it was, read from an OpenAI-compatible response."""

import json
import math
from dataclasses import dataclass
from typing import Any

from curation.vlm.prompts import Prompt
from edges.model_server import MalformedResponseError, text_of

_UNSURE = ("yes", "no")  # the words that p_yes weighs against each other


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
    if prompt.words and value not in prompt.words:
        raise MalformedError(f"the answer is none of {', '.join(prompt.words)}: {shown(value)}")
    return value


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
            said = before + token["token"]
            if len(_fitting(prompt, said)) <= 1:
                for other in token["top_logprobs"]:
                    fits = _fitting(prompt, before + other["token"])
                    if len(fits) == 1 and fits[0] in _UNSURE:
                        sums[fits[0]] += math.exp(other["logprob"])
                return weigh(*(math.log(sums[word]) if sums[word] else -math.inf for word in _UNSURE))
            before = said
    except (KeyError, TypeError, OverflowError):
        pass
    raise MalformedError("the response has no logprobs of its tokens")


def _fitting(prompt: Prompt, text: str) -> list[str]:
    """The words whose answer begins with `text`, or is begun by it; blanks do not count."""
    start = "".join(text.split())
    wholes = {word: f'{prompt.opening}{word}"}}' for word in prompt.words}
    return [word for word, whole in wholes.items() if whole.startswith(start) or start.startswith(whole)]
