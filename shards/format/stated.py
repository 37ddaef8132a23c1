"""What the record beside a photo states of it, under whatever name its maker gives that."""

from collections.abc import Mapping
from typing import Any

CARRIED = (
    "subject_hint",
    "collection",
    "source_url",
    "page_url",
    "author",
    "licence",
    "consent",
    "caption",
)
_SPELLINGS = {"source_url": ("url",), "licence": ("license",)}


def carried_columns(record: Mapping[str, Any], names: Mapping[Any, str] | None = None) -> dict[str, Any]:
    """{column of CARRIED: text} of what `record` states, in valid UTF-8; what it leaves empty is not there.

    `url` is understood as `source_url` and `license` as `licence`, each in any case of letters: img2dataset
    keeps whatever its list called them, as `LICENSE`. A name that is spelt exactly so goes first.

    names  {column: what the collection calls it}; such a one is looked for under that very name alone
    """
    names = names or {}
    folded: dict[str, Any] = {}
    for name, value in record.items():
        if not _is_empty(value):
            folded.setdefault(str(name).lower(), value)
    found: dict[str, Any] = {}
    for column in CARRIED:
        if column in names:
            values = [record.get(names[column])]
        else:
            values = [value for name in _spellings(column) for value in (record.get(name), folded.get(name))]
        value = next((value for value in values if not _is_empty(value)), None)
        if value is not None:
            found[column] = plain_text(_text(value))
    return found


def _text(value: Any) -> str:
    """A value as text; of a list its texts, one behind the other."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def is_carried(name: str, names: Mapping[Any, str] | None = None) -> bool:
    """Whether a column may be taken from what a record calls `name`."""
    names = names or {}
    spellings = {spelling for column in CARRIED if column not in names for spelling in _spellings(column)}
    return name in names.values() or name.lower() in spellings


def _spellings(column: str) -> tuple[str, ...]:
    return (column, *_SPELLINGS.get(column, ()))


def plain_text(text: str) -> str:
    """The text in valid UTF-8: lone surrogates, as of odd file names, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == []
