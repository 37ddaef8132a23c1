"""Reads one pipeline of pipelines.yaml: duplicate and unknown keys, wrong types and ranges are named.

Every problem is one line: file:line, key, value, what is allowed.
"""

import difflib
import typing
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from curation.errors import ConfigError
from curation.excluded.tombstone_store import store_of_file
from curation.settings import PipelineSettings, PipelinesFile

Path = tuple[str | int, ...]
Lines = dict[Path, int]
_MOST_NODES = 100_000  # aliases of aliases grow without end


def load_pipeline(file: str, name: str, overrides: Sequence[str] = ()) -> PipelineSettings:
    """The pipeline `name` of `file` with `--set` overrides applied, validated whole.

    Raises ConfigError with one line for each problem.
    """
    data, lines = _read(file)
    pipelines = data.get("pipelines") if isinstance(data, dict) else None
    if not isinstance(pipelines, dict) or not pipelines:
        raise ConfigError(f"{file}: no pipelines; the file needs a mapping 'pipelines: NAME: ...'")
    unknown = [key for key in data if key != "pipelines"]
    if unknown:
        raise ConfigError(_unknown(file, lines.get((unknown[0],)), str(unknown[0]), ["pipelines"]))
    if name not in pipelines:
        raise ConfigError(f"{file}: no pipeline '{name}'{_hint(name, [str(key) for key in pipelines])}")
    pipeline = pipelines[name]
    if not isinstance(pipeline, dict):
        raise ConfigError(f"{file}: pipelines.{name}: must be a mapping, not {pipeline!r}")
    for override in overrides:
        _override(pipeline, override)
    try:
        return _with_store(PipelineSettings.model_validate(pipeline), file)
    except ValidationError as error:
        given = {override.split("=", 1)[0] for override in overrides}
        raise ConfigError("\n".join(_lines_of(error, file, name, lines, given))) from None


def _with_store(pipeline: PipelineSettings, file: str) -> PipelineSettings:
    """Runs of one file obey one store of the forgotten, wherever they lie."""
    screen = pipeline.photos.screen
    if screen.forgotten is None:
        screen = screen.model_copy(update={"forgotten": store_of_file(file)})
    return pipeline.model_copy(update={"photos": pipeline.photos.model_copy(update={"screen": screen})})


def json_schema() -> dict[str, Any]:
    """The JSON schema of pipelines.yaml, for editors."""
    return {
        **PipelinesFile.model_json_schema(),
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipelines.yaml of persona",
    }


def _read(file: str) -> tuple[Any, Lines]:
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give another with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: Lines = {}
        if node is not None:
            if _unfolded(node, {}) > _MOST_NODES:
                raise ConfigError(f"{file}: unfolds to more than {_MOST_NODES} keys and values")
            _locate(node, (), lines, file)
        return yaml.safe_load(text), lines
    except RecursionError:
        raise ConfigError(f"{file}: is nested without end") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are when every alias is written out; each node is visited once."""
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1  # an alias inside itself has no end
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        items = (item for entry in below for item in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_unfolded(item, known) for item in items)
    return known[id(node)]


def _locate(node: yaml.Node, path: Path, lines: Lines, file: str) -> None:
    """Notes the line of every key; a key given twice in one mapping is an error."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in seen and key != "<<":
                raise ConfigError(f"{file}:{line}: {'.'.join(map(str, (*path, key)))}: given twice")
            seen.add(key)
            lines[(*path, key)] = line
            _locate(value_node, (*path, key), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _locate(item, (*path, index), lines, file)


def _override(pipeline: dict[str, Any], override: str) -> None:
    """Applies `a.b=value`; the value is read as YAML."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--set {override}: must be path.to.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    *folders, last = key.split(".")
    level = pipeline
    for depth, folder in enumerate(folders):
        below = level.get(folder)
        if below is None:
            below = level[folder] = {}
        elif isinstance(below, str) and folders[: depth + 1] == ["people", "full_body"]:
            below = level[folder] = {"preset": below}
        if not isinstance(below, dict):
            raise ConfigError(
                f"--set {override}: {'.'.join(folders[: depth + 1])} is {below!r}, not a mapping"
            )
        level = below
    level[last] = value


def _lines_of(error: ValidationError, file: str, name: str, lines: Lines, overridden: set[str]) -> list[str]:
    messages = []
    for problem in error.errors(include_url=False):
        keys = _keys(problem["loc"])
        shown = ".".join(map(str, keys))
        path: Path = ("pipelines", name, *keys)
        line = None
        while line is None and path:
            line = lines.get(path)
            path = path[:-1]
        is_set = any(shown == key or shown.startswith(key + ".") for key in overridden)
        if not keys:  # a rule between keys: its message begins with the one that is wrong
            is_set = any(problem["msg"].removeprefix("Value error, ").startswith(key) for key in overridden)
        where = "--set" if is_set else file if line is None else f"{file}:{line}"
        kind = problem["type"]
        if kind == "extra_forbidden":
            known = _known_keys(problem["loc"][:-1])
            messages.append(_unknown(where, None, shown, known))
            continue
        if kind == "missing":
            messages.append(f"{where}: {shown}: is required")
            continue
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            tags = [tag for tag in _tags(problem) if tag != "plugin"]
            given = problem.get("ctx", {}).get("tag")
            if given is None:
                messages.append(f"{where}: {shown}.backend: is required; one of {', '.join(tags)}")
            else:
                messages.append(
                    f"{where}: {shown}.backend: '{given}' is not one of {', '.join(tags)}"
                    f"{_hint(str(given), tags)}"
                )
            continue
        said = problem["msg"].removeprefix("Value error, ")
        said = said[0].lower() + said[1:] if said[:5] in ("Input", "Value") else said
        if not keys:
            messages.append(f"{where}: {said}")
        else:
            messages.append(f"{where}: {shown}: {problem['input']!r}: {said}")
    return messages


def _tags(problem: Any) -> list[str]:
    expected = problem.get("ctx", {}).get("expected_tags")
    if expected:
        return [tag.strip().strip("'") for tag in expected.split(",")]
    annotation = _walk(problem["loc"])
    return [
        choice.model_fields["backend"].default
        for choice in _models_in(annotation)
        if isinstance(choice.model_fields["backend"].default, str)
    ]


def _unknown(where: str, line: int | None, key: str, known: list[str]) -> str:
    last = key.rsplit(".", 1)[-1]
    at = where if line is None else f"{where}:{line}"
    return f"{at}: {key}: unknown key{_hint(last, known) or '; known: ' + ', '.join(sorted(known))}"


def _hint(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _keys(loc: tuple[int | str, ...]) -> Path:
    """A pydantic location without the union tags in it, which are no keys of the file."""
    keys: list[str | int] = []
    annotation: Any = PipelineSettings
    for part in loc:
        models = _models_in(annotation)
        owner = next((m for m in models if part in m.model_fields), None)
        if owner is not None:
            keys.append(part)
            annotation = owner.model_fields[str(part)].annotation
        elif any(_tag(m) == part for m in models):
            annotation = next(m for m in models if _tag(m) == part)
        elif len(models) > 1 and isinstance(part, str) and part == "plugin":
            annotation = next(m for m in models if _tag(m) == "plugin")
        else:
            keys.append(part)
            annotation = _item_of(annotation)
    return tuple(keys)


def _walk(loc: tuple[int | str, ...]) -> Any:
    annotation: Any = PipelineSettings
    for part in loc:
        models = _models_in(annotation)
        owner = next((m for m in models if part in m.model_fields), None)
        if owner is not None:
            annotation = owner.model_fields[str(part)].annotation
        else:
            annotation = next((m for m in models if _tag(m) == part), None) or _item_of(annotation)
    return annotation


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    return sorted({key for model in _models_in(_walk(loc)) for key in model.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("backend")
    if field is None:
        return None
    return field.default if isinstance(field.default, str) else "plugin"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a value of this type may be, through unions and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (dict, list):
        return []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _item_of(annotation: Any) -> Any:
    """The type of the values of a dict or list type."""
    arguments = typing.get_args(annotation)
    return arguments[-1] if arguments else None
