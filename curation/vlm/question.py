"""A question to the model: a prompt and the pictures of one or two people, made when it is sent."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.models import Model
from curation.settings.source import SourceSettings
from curation.settings.vlm import VlmSettings
from curation.vlm.person_pictures import COLUMNS, Person, PersonPictures
from curation.vlm.picture import JPEG_QUALITY, VERSION, data_url
from curation.vlm.prompts import PROMPTS, Prompt


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


__all__ = ["COLUMNS", "Person", "Question", "Questions"]
