"""Identity and text scores by a vision-language model behind an OpenAI-compatible server."""

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from edges.model_server import KEY_VARIABLE, ask, chat_url
from training.evaluation.cases import MissingScorerError, Pictured
from training.evaluation.settings import VlmQuestion, VlmSettings

_NUMBER = re.compile(r"\b(10|\d)\b")
# The first word, or that of a JSON object's first value, which is how the demo's judge answers.
_YES = re.compile(r'\s*(?:\{\s*"\w+"\s*:\s*")?(yes|no)\b', re.IGNORECASE)


class VlmScore:
    """One question about each picture, at temperature 0; 0 to 10, None for an answer that is none.

    Raises MissingScorerError where the server does not answer.
    """

    def __init__(self, name: str, says: str, question: VlmQuestion, settings: VlmSettings) -> None:
        self.name, self.says = name, says
        self._question, self._settings = question, settings
        asked = [settings.model, settings.max_tokens, question.model_dump(mode="json")]
        self.key = f"{name} {hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]}"

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """Asks for all pictures, several at a time."""
        with ThreadPoolExecutor(self._settings.requests) as pool:
            return list(pool.map(self._ask, pictured))

    def _ask(self, one: Pictured) -> float | None:
        shown = {"reference": one.case.person.cut(), "generated": one.picture}
        content: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": _data_url(shown[name], self._question.side_px)}}
            for name in self._question.pictures
        ]
        content.append({"type": "text", "text": self._question.text.replace("{prompt}", one.case.prompt)})
        payload = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._settings.max_tokens,
            "temperature": 0,
        }
        return score_of(self._post(payload), self._question)

    def _post(self, payload: dict[str, object]) -> str:
        settings, url = self._settings, chat_url(self._settings.endpoint)
        try:
            return ask(url, os.environ.get(KEY_VARIABLE), payload, settings.timeout_s, settings.retries)
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            raise MissingScorerError(f"{url}: {problem}") from None


def score_of(answer: str, question: VlmQuestion) -> float | None:
    """0 to 10: the first whole number of the answer, or its first word; as JSON too."""
    if question.answer == "yes_no":
        word = _YES.match(answer)
        return None if word is None else 10.0 * (word[1].lower() == "yes")
    number = _NUMBER.search(answer)
    return None if number is None else float(number[1])


def _data_url(picture: np.ndarray, side_px: int) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
