"""The questions put to a vision-language model, by name, and the shape of each answer.

A prompt is part of what a measurement depends on: to change one, give it a new name.
"""

from dataclasses import dataclass
from typing import Any


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
        """What every answer begins with."""
        return f'{{"{self.key}":"'


REGIONS = {
    "upper": "the garment on the upper body",
    "lower": "the garment on the legs, or the skirt of a dress",
    "shoes": "the shoes",
    "headwear": "what is worn on the head",
    "outer": "the outermost layer, such as a jacket or a coat",
}
"""What the prompts `region-NAME` ask about."""


def _about(name: str, what: str) -> Prompt:
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
        *(_about(name, what) for name, what in REGIONS.items()),
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
