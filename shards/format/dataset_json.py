"""What dataset.json must hold, looked at before anything is taken from it."""

from collections.abc import Mapping
from typing import Any

_COUNTS = ("groups", "photos", "bytes", "revision")
_TEXTS = ("name", "checksum")


def nonsense_in(about: Any) -> str | None:
    """What is wrong with a parsed dataset.json, in a few words; None where it can be worked with."""
    if not isinstance(about, dict):
        return "is no JSON object"
    if "shards" not in about:
        return "lacks 'shards'"
    entries = about["shards"]
    if not isinstance(entries, list):
        return f"shards is {_short(entries)}, no list"
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            return f"shards[{number}] is {_short(entry)}, no object"
        wrong = _wrong_in(entry, ("groups",), ("name",))
        if wrong is not None:
            return f"shards[{number}]: {wrong}"
    wrong = _wrong_in(about, ("groups",), ())
    if wrong is not None:
        return wrong
    index = about.get("index", {})
    if not _maps_texts(index):
        return f"index is {_short(index)}, not {{file name: checksum}}"
    stones = about.get("tombstones", {"name": "", "checksum": ""})
    if not isinstance(stones, dict) or _wrong_in(stones, (), ("name", "checksum")) is not None:
        return f"tombstones is {_short(stones)}, no {{name, checksum}}"
    gone = about.get("replaced", [])  # these are deleted: none of them may lie elsewhere
    if not isinstance(gone, list) or not all(isinstance(name, str) and "/" not in name for name in gone):
        return f"replaced is {_short(gone)}, no list of plain names"
    card = about.get("card", [])
    if not isinstance(card, list) or not all(isinstance(name, str) and "/" not in name for name in card):
        return f"card is {_short(card)}, no list of plain names"
    if not isinstance(about.get("latents", {}), dict):
        return f"latents is {_short(about['latents'])}, no object"
    steps = about.get("history", [])
    if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
        return f"history is {_short(steps)}, no list of {{groups, removed}}"
    return None


def _wrong_in(part: Mapping[str, Any], counts: tuple[str, ...], texts: tuple[str, ...]) -> str | None:
    """Keys that must be there, and the types of those that may be."""
    for name in (*counts, *texts):
        if name not in part:
            return f"lacks {name!r}"
    for name in _COUNTS:
        value = part.get(name, 0)
        if not isinstance(value, int) or value < 0:
            return f"{name} is {_short(value)}, no count"
    for name in _TEXTS:
        value = part.get(name, "")
        if not isinstance(value, str) or "/" in value:
            return f"{name} is {_short(value)}, no plain name"
    return None


def _maps_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and "/" not in name for name, text in value.items()
    )


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, dict)
        and isinstance(step.get("groups"), int)
        and isinstance(step.get("removed"), str)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
