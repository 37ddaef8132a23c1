"""The weights that the pipelines of pipelines.yaml name, with the licences that their cards state."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from requirements.pinned import FOLDER

PIPELINES = FOLDER.parent / "pipelines.yaml"


@dataclass(frozen=True)
class Card:
    """One model card.

    licence_source  where the licence is stated; None where the card does not say
    trained_on      what the weights were trained on, and the doubts about its terms; None likewise
    sha256          of the file, or over a folder's files; None where it is not stated, the first of several:
                    what `models pull` lays
    """

    name: str
    pipelines: tuple[str, ...]
    licence: str
    licence_source: str | None
    trained_on: str | None
    commercial: bool
    source: str
    sha256: str | None


def read_cards(file: Path = PIPELINES) -> list[Card]:
    """Every card, by name; equal cards of several pipelines are one."""
    found: dict[tuple[str, str], tuple[dict[str, Any], list[str]]] = {}
    for pipeline, settings in yaml.safe_load(file.read_text())["pipelines"].items():
        for name, card in settings.get("models", {}).get("cards", {}).items():
            found.setdefault((name, repr(sorted(card.items()))), (card, []))[1].append(pipeline)
    return [
        Card(
            name,
            tuple(sorted(pipelines)),
            card["licence"],
            card.get("licence_source"),
            card.get("trained_on"),
            bool(card["commercial"]),
            card["source"],
            next(iter(card["sha256"]), None) if isinstance(card.get("sha256"), list) else card.get("sha256"),
        )
        for (name, _), (card, pipelines) in sorted(found.items(), key=lambda item: item[0])
    ]
