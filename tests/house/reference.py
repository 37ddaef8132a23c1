"""Writes the tables of keys in docs/pipelines.md from the settings, and from the stages the words of numbers
that `persona why` reads: `make reference`.

A table stands between `<!-- keys of PATH -->` and `<!-- end of keys -->`, and holds every key below that path
of a pipeline but those that have a table of their own. PATH is `top level` for a pipeline's own keys, and
`PATH BACKEND` for those of one backend; `… unlike PATH` leaves out the rows of that other table.

python -m tests.house.reference            writes them
python -m tests.house.reference --check    exit code 1 where they are not what would be written
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from curation.funnel import number_words
from curation.settings import PipelineSettings
from curation.settings.base import PluginBackend, Resources
from curation.settings.outfits import ClustersStrategy
from curation.settings.people import FullBodySettings
from curation.settings.vlm import VlmSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pipelines.md"
NUMBER_WORDS = PAGE.parents[1] / "curation" / "number_words.json"
_TABLE = re.compile(r"(<!-- keys of ([\w. ]+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_HEAD = "| key | default | values | kind | |\n|---|---|---|---|---|\n"
_TOP = "top level"
# What a run is about, or how it is cut: such keys measure nothing anew by themselves.
_INPUT = ("seed", "source", "models", "people.measure", "shards", "engine.fragment_rows")
_PRESETS: dict[type[BaseModel], dict[str, BaseModel]] = {
    FullBodySettings: {name: FullBodySettings(preset=name).resolved() for name in ("any", "paper")},
    ClustersStrategy: {name: ClustersStrategy(preset=name).resolved() for name in ("strict", "recall")},
}


@dataclass(frozen=True)
class Key:
    """One row of a table."""

    path: str
    default: str
    values: str
    kind: str
    says: str


def keys_of(
    settings: type[BaseModel], path: str, apart: set[str], kind: str | None = None, of: str = ""
) -> Iterator[Key]:
    """The keys below a path, as they are declared; without paths in `apart`, which have their own table."""
    for name, info in settings.model_fields.items():
        here = f"{path}.{name}" if path else name
        models = [model for model in _models_of(info.annotation) if model is not PluginBackend]
        own_kind = kind or _kind_of(info, here)
        if models == [Resources]:
            continue
        if not models:
            if name != "backend":
                yield Key(here, _default(settings, name, info), _values(info), own_kind, _says(info, of))
            continue
        if _is_choice(models):
            yield _choice(here, info, models, own_kind)
        elif info.default is None:
            yield Key(here, "none", "", own_kind, _says(info, of))
        if here in apart:
            continue
        below = f"{here}.NAME" if get_origin(info.annotation) is dict else here
        for model in models:
            if not (issubclass(model, VlmSettings) and path):
                name_of = _backend_of(model) if _is_choice(models) and len(models) > 1 else ""
                yield from keys_of(model, below, apart, "R" if own_kind == "R" else None, name_of)


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_of(part)]


def _is_choice(models: list[type[BaseModel]]) -> bool:
    return "backend" in models[0].model_fields


def _backend_of(model: type[BaseModel]) -> str:
    return str(model.model_fields["backend"].default)


def _choice(here: str, info: FieldInfo, models: list[type[BaseModel]], kind: str) -> Key:
    default = getattr(info.default, "backend", "required")
    says = "; ".join(f"`{_backend_of(model)}`: {_first_sentence(model)}" for model in models)
    if PluginBackend in _models_of(info.annotation):
        says += "; or a plugin"
    return Key(f"{here}.backend", f"`{default}`" if default != "required" else default, "", kind, says)


def _first_sentence(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _kind_of(info: FieldInfo, here: str) -> str:
    extra = info.json_schema_extra
    kind = extra.get("kind") if isinstance(extra, dict) else None
    if kind in ("threshold", "resource"):
        return "T" if kind == "threshold" else "R"
    return "I" if any(here == name or here.startswith(f"{name}.") for name in _INPUT) else "M"


def _says(info: FieldInfo, of: str) -> str:
    text = (info.description or "").replace("|", "\\|")
    return f"{of}: {text}" if of else text


def _default(settings: type[BaseModel], name: str, info: FieldInfo) -> str:
    presets = _PRESETS.get(settings, {})
    if info.default is None and any(name in rules.model_fields_set for rules in presets.values()):
        return ", ".join(f"{preset}: {shown(getattr(rules, name))}" for preset, rules in presets.items())
    if info.default_factory is not None:
        return "none"
    return "required" if info.default is PydanticUndefined else shown(info.default)


def shown(value: Any) -> str:
    """A value as a table has it."""
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return (
        f"{value:.10g}"
        if isinstance(value, float)
        else str(value)
        if isinstance(value, int)
        else f"`{value}`"
    )


def _values(info: FieldInfo) -> str:
    """Bounds of a number, or the words that are accepted."""
    words = _literals(info.annotation)
    if words:
        return ", ".join(f"`{word}`" for word in words)
    bounds = {
        name: getattr(part, name)
        for part in _bounds_of(info)
        for name in ("ge", "gt", "le", "lt", "multiple_of")
        if getattr(part, name, None) is not None
    }
    texts = []
    if "ge" in bounds and "le" in bounds:
        texts.append(f"{shown(bounds.pop('ge'))} to {shown(bounds.pop('le'))}")
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    texts += [f"{signs[name]} {shown(bounds[name])}" for name in signs if name in bounds]
    return ", ".join(texts)


def _bounds_of(info: FieldInfo) -> Iterator[Any]:
    waiting: list[Any] = [info.annotation]
    yield from info.metadata
    while waiting:
        part = waiting.pop()
        for bound in getattr(part, "__metadata__", ()):
            yield from getattr(bound, "metadata", [bound])
        waiting += get_args(part)


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    if get_origin(annotation) is dict:
        return []
    return [word for part in get_args(annotation) for word in _literals(part)]


def settings_at(path: str) -> tuple[type[BaseModel], str | None]:
    """The settings class at a path of a pipeline, and the kind of all its keys where a key above has one."""
    settings: type[BaseModel] = PipelineSettings
    kind = None
    words = path.split(".")
    for place, word in enumerate(words):
        name, _, backend = word.partition(" ")
        info = settings.model_fields[name]
        if _kind_of(info, ".".join(words[: place + 1])) == "R":
            kind = "R"
        models = _models_of(info.annotation)
        settings = next(model for model in models if not backend or _backend_of(model) == backend)
    return settings, kind


def rows_of(path: str, apart: set[str]) -> list[str]:
    """The rows of one table, as Markdown. Raises KeyError for a path that no pipeline has."""
    if path == _TOP:
        found = [key for key in keys_of(PipelineSettings, "", apart) if "." not in key.path]
        prefix = ""
    else:
        settings, kind = settings_at(path)
        plain = path.partition(" ")[0]
        found = list(keys_of(settings, plain, apart - {plain}, kind))
        prefix = f"{plain}."
    return [
        f"| `{key.path.removeprefix(prefix)}` | {key.default} | {key.values} | {key.kind} | {key.says} |\n"
        for key in found
    ]


def table(path: str, apart: set[str]) -> str:
    """One table, as Markdown."""
    path, _, other = path.partition(" unlike ")
    known = rows_of(other, apart) if other else []
    return _HEAD + "".join(row for row in rows_of(path, apart) if row not in known)


def written(text: str) -> str:
    """A page with its tables as the settings are now."""
    paths = {match[2] for match in _TABLE.finditer(text)}
    return _TABLE.sub(lambda match: f"{match[1]}\n{table(match[2], paths)}\n{match[3]}", text)


def keys_without_words() -> list[str]:
    """Keys that say nothing of themselves."""
    return [key.path for key in keys_of(PipelineSettings, "", set()) if not key.says]


def keys_told(text: str) -> set[str]:
    """The keys that the tables of a page hold, whole paths."""
    found = set()
    for match in _TABLE.finditer(text):
        prefix = "" if match[2] == _TOP else match[2].partition(" ")[0] + "."
        found |= {prefix + key for key in re.findall(r"^\| `([\w.]+)` \|", match[0], re.M)}
    return found


def main() -> int:
    """Writes or checks the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = PAGE.read_text()
    after = written(before)
    if not options.check:
        PAGE.write_text(after)
        NUMBER_WORDS.write_text(number_words())
        return 0
    for file, stale in ((PAGE, before != after), (NUMBER_WORDS, NUMBER_WORDS.read_text() != number_words())):
        if stale:
            print(f"{file.name} is out of date; run `make reference`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
