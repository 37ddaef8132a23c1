"""A question to the model: a prompt and the pictures of one or two people, made when it is sent."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.models import Model
from curation.people.atr import decode_map
from curation.photos.decode import decode_rgb
from curation.settings.source import SourceSettings
from curation.settings.vlm import VlmSettings
from curation.sources.photo_bytes import PhotoBytes
from curation.vlm.picture import JPEG_QUALITY, VERSION, data_url, jpeg, person_picture
from curation.vlm.prompts import PROMPTS, Prompt

# The columns of a person that a picture is made of.
COLUMNS = ("person_id", "photo_id", "source_key", "uri", "offset", "length", "row", "box", "mask")
_OPEN_BYTES = 128 * 2**20  # of finished pictures; one person is often shown several times in a row

Person = Mapping[str, Any]


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
        self._bytes = PhotoBytes(source)
        self._reading = threading.Lock()
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes = 0
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
            digest.update(self._recipe(person).encode())
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
        recipe = self._recipe(person)
        with self._reading:
            if recipe in self._pictures:
                self._pictures.move_to_end(recipe)
                return self._pictures[recipe]
            data = self._bytes.read(person)
        if hashlib.sha256(data).hexdigest() != person["photo_id"]:
            raise ValueError("the photo has changed since it was read")
        settings = self._settings
        mask = None if person["mask"] is None else decode_map(person["mask"]) > 0
        if mask is None and settings.background == "grey":
            raise ValueError("the person has no mask")
        canvas = (settings.canvas_px[0], settings.canvas_px[1])
        box = np.array(person["box"], np.float64)
        picture = jpeg(
            person_picture(decode_rgb(data), box, mask, canvas, settings.background, settings.margin)
        )
        with self._reading:
            if recipe not in self._pictures:
                self._pictures[recipe] = picture
                self._n_bytes += len(picture)
            while self._n_bytes > _OPEN_BYTES:
                self._n_bytes -= len(self._pictures.popitem(last=False)[1])
        return picture

    def _recipe(self, person: Person) -> str:
        mask = b"" if self._settings.background == "keep" or person["mask"] is None else person["mask"]
        parts = [person["photo_id"], list(person["box"]), hashlib.sha256(mask).hexdigest()]
        return json.dumps(parts)
