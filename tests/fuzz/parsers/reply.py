"""The reader of what a vision-language model answered."""

import json
from contextlib import suppress

from curation.vlm.asking import PROMPTS, MalformedError, read_answer, read_reply
from tests.fake_vlm import completion, says

MODULES = ("curation.vlm.asking", "json.decoder", "json.scanner")


def seeds() -> list[bytes]:
    """Good answers, and text that is none."""
    found = [says("yes"), says("no", 0.2), completion('{"caption":"A person stands."}'), {"choices": []}]
    return [json.dumps(answer).encode() for answer in found] + [
        b'{"same":"yes"}',
        b'```json\n{"same":"no"}```',
        b"[" * 3000,
    ]


def parse(data: bytes) -> None:
    """A reply or MalformedError: as a response, and as the text of one."""
    text = data.decode("utf-8", "replace")
    try:
        response = json.loads(text)
    except (ValueError, RecursionError):  # the HTTP client's to refuse
        response = None
    for prompt in PROMPTS.values():
        with suppress(MalformedError):
            found = read_reply(prompt, response)
            assert found.p_yes is None or 0 <= found.p_yes <= 1
        with suppress(MalformedError):
            read_answer(prompt, text)
