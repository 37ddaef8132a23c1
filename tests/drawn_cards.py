"""A pipeline file whose cards name weights of the test, and what `models pull` makes of it."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.drawn_pipeline import persona, settings

_PLACES = (("detect", "by"), ("segment", "by"), ("regions", "by"), ("face", "find"), ("face", "embed"))


def sha256(data: bytes) -> str:
    """The sha256 as cards state it."""
    return hashlib.sha256(data).hexdigest()


def card(source: str, file: str, **others: Any) -> dict[str, Any]:
    """A model card."""
    return {"source": source, "file": file, "licence": "MIT", "commercial": True, **others}


def write_cards(file: Path, **cards: dict[str, Any]) -> Path:
    """A pipelines.yaml whose pipeline `drawn` uses up to five cards, by name."""
    pipeline = settings(file.parent / "photos")
    for (step, key), name in zip(_PLACES, cards, strict=False):
        pipeline["people"][step][key]["model"] = name
    pipeline["models"] = {"cards": cards}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    return file


def pull(config: Path, to: Path | None, *words: str, alone: bool = False) -> subprocess.CompletedProcess[str]:
    """`persona models pull drawn`; its output is JSON."""
    place = ("--to", str(to)) if to is not None else ()
    return persona(
        "models", "pull", "drawn", "--config", str(config), *place, "--json", "--quiet", *words, alone=alone
    )


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """{card: what became of it}."""
    return {row["name"]: row for row in json.loads(done.stdout)}


def faults(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of what went wrong; every line begins as errors of persona do."""
    lines = done.stderr.splitlines()
    assert all(line.startswith("persona: ") for line in lines), done.stderr
    return [line.removeprefix("persona: ") for line in lines]


def pins(config: Path) -> dict[str, dict[str, str]]:
    """What models.lock beside the pipeline file holds."""
    return dict(yaml.safe_load((config.parent / "models.lock").read_text()))
