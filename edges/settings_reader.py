"""Settings out of YAML: every mistake is a line with its place, key and value, and what is allowed.

The settings are pydantic models. Where one of several is chosen, the key `backend` chooses it.
"""

import datetime
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
Lines = dict[Path, int]
"""{key path: line in the file}."""
_Kind = TypeVar("_Kind", bound=BaseModel)
_MOST_NODES = 100_000  # aliases of aliases grow without end


class SettingsError(ValueError):
    """Settings that cannot be used; `str()` has a line for each problem."""


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-5 is a number, as people and YAML 1.2 write it; PyYAML takes it for text."""


# YAML 1.1, which PyYAML reads, asks for a point before an exponent and for a sign in it.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """What a YAML text of settings holds. Raises YAMLError, ValueError, RecursionError as PyYAML does."""
    return yaml.load(text, _Loader)


def read_yaml(text: str, file: str) -> tuple[Any, Lines]:
    """What a YAML text holds, and the line of every key. `file` is its name in messages.

    Raises SettingsError for a text that is no YAML or unfolds without end, and for a key given twice.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines: Lines = {}
        if node is not None:
            if _unfolded(node, {}) > _MOST_NODES:
                raise SettingsError(f"{file}: unfolds to more than {_MOST_NODES} keys and values")
            _locate(node, (), lines, file)
        return load_yaml(text), lines
    except RecursionError:
        raise SettingsError(f"{file}: is nested without end") from None
    except SettingsError:
        raise
    except ValueError as error:  # of a value: a date that there is not, a number without end
        raise SettingsError(f"{file}: not valid YAML: {str(error)[:120]}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise SettingsError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


def assignments(words: Sequence[str]) -> dict[str, Any]:
    """{path: value} of the words `path.to.key=value` of `--set`, values being YAML. Raises SettingsError."""
    found: dict[str, Any] = {}
    for word in words:
        path, equals, text = word.partition("=")
        if not equals or not all(path.split(".")):
            raise SettingsError(f"--set {word}: must be path.to.key=value")
        found.pop(path, None)  # said twice: the last word counts, in its place
        try:
            found[path] = load_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise SettingsError(f"--set {word[:80]}: the value is not valid YAML") from None
    return found


def set_keys(
    settings: dict[str, Any], changes: Mapping[str, Any], words: Mapping[str, str] | None = None
) -> None:
    """Sets values at dotted paths, in place.

    words   {path of a mapping that may be a word too: the key of it that the word is the value of}

    Raises SettingsError where a path leads through a value that is no mapping.
    """
    for path, value in changes.items():
        *folders, last = path.split(".")
        level = settings
        for depth, folder in enumerate(folders, 1):
            place, below = ".".join(folders[:depth]), level.get(folder)
            if below is None:
                below = level[folder] = {}
            elif isinstance(below, str) and words and place in words:
                below = level[folder] = {words[place]: below}
            if not isinstance(below, dict):
                raise SettingsError(f"--set {path}: {place} is {below!r}, not a mapping")
            level = below
        level[last] = value


def validated(
    kind: type[_Kind],
    given: Any,
    file: str,
    lines: Lines | None = None,
    *,
    below: Path = (),
    changed: Sequence[str] = (),
) -> _Kind:
    """Settings of a kind.

    file, lines   where they are from; `below` is where in the file they begin
    changed       dotted paths that `--set` has set

    Where a list is asked for, a single word is the list of it: `licences=CC0-1.0`. One with a comma is
    refused, so that nobody takes `a,b` for two.

    Raises SettingsError.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        single = [problem for problem in error.errors() if _is_single_word(problem, kind)]
        if single:
            for problem in single:
                given = _with_list(given, _walk(kind, problem["loc"])[0])
            return validated(kind, given, file, lines, below=below, changed=changed)
        problems = _one_a_value(error.errors(), kind)
        found = [_line(problem, kind, file, lines or {}, below, changed) for problem in problems]
        raise SettingsError("\n".join(found)) from None


def _is_single_word(problem: Any, kind: type[BaseModel]) -> bool:
    """Whether a list was asked for, and nothing else, and one word or number was given."""
    given = problem["input"]
    is_word = (isinstance(given, str) and given.strip() != "" and "," not in given) or (
        isinstance(given, int | float) and not isinstance(given, bool)
    )
    return problem["type"] == "list_type" and is_word and not _choices(_walk(kind, problem["loc"][:-1])[1])


def _one_a_value(problems: Sequence[Any], kind: type[BaseModel]) -> list[Any]:
    """The problems without repeating: of a value that may be of several types pydantic has one for each type.
    Where an item of the value is the problem, that one alone stays."""
    by_key: dict[Path, list[Any]] = {}
    for problem in problems:
        by_key.setdefault(_walk(kind, problem["loc"])[0], []).append(problem)
    found = []
    for keys, same in by_key.items():
        first, *others = same
        is_choice = bool(_choices(_walk(kind, first["loc"][:-1])[1]))
        if is_choice and any(len(other) > len(keys) and other[: len(keys)] == keys for other in by_key):
            continue
        asked = [first["msg"], *(problem["msg"].removeprefix("Input should be ") for problem in others)]
        found.append({**first, "msg": " or ".join(asked)})
    return found


def _with_list(given: Any, path: Path) -> Any:
    """The settings with what lies at a path as a list of it; what was given stays as it is."""
    if not path:
        return [given]
    below = _with_list(given[path[0]], path[1:])
    if isinstance(given, list):
        return [below if place == path[0] else item for place, item in enumerate(given)]
    return {**given, path[0]: below}


def near(word: str, known: Sequence[str]) -> str:
    """The end of a message on an unknown word: the nearest one that is known, or nothing."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def unknown_key(where: str, key: str, known: Sequence[str]) -> str:
    """The line on a key that there is not."""
    names = sorted(known)
    hint = near(key.rsplit(".", 1)[-1], names) or f"; known: {', '.join(names)}"
    return f"{where}: {key}: unknown key{hint}"


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
                raise SettingsError(f"{file}:{line}: {_dotted((*path, key))}: given twice")
            seen.add(key)
            lines[(*path, key)] = line
            _locate(value_node, (*path, key), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _locate(item, (*path, index), lines, file)


def _line(
    problem: Any, kind: type[BaseModel], file: str, lines: Lines, below: Path, changed: Sequence[str]
) -> str:
    """One problem of pydantic's, in words of the file."""
    loc, fault = problem["loc"], problem["type"]
    keys, annotation = _walk(kind, loc)
    shown = _dotted(keys)
    says = problem["msg"].removeprefix("Value error, ")
    says = says[0].lower() + says[1:] if says[:5] in ("Input", "Value") else says
    is_rule = fault == "value_error" and isinstance(problem["input"], Mapping)  # between keys of a section
    if keys:
        is_set = any(shown == key or shown.startswith(key + ".") for key in changed)
        is_set = is_set or (is_rule and any(key.startswith(shown + ".") for key in changed))
    else:  # a rule between keys: its message begins with the one that is wrong
        is_set = any(says.startswith(key) for key in changed)
    where = "--set" if is_set else _place(file, lines, (*below, *keys))
    if fault == "extra_forbidden":
        owners = _models_in(_walk(kind, loc[:-1])[1])
        return unknown_key(where, shown, list({key for model in owners for key in model.model_fields}))
    if fault == "missing":
        return f"{where}: {shown}: is required"
    if fault in ("union_tag_invalid", "union_tag_not_found"):
        tags = [tag for tag in _tags(problem, annotation) if tag != "plugin"]
        given = problem.get("ctx", {}).get("tag")
        if given is None:
            return f"{where}: {shown}.backend: is required; one of {', '.join(tags)}"
        return f"{where}: {shown}.backend: '{given}' is not one of {', '.join(tags)}{near(str(given), tags)}"
    if fault == "multiple_of" and isinstance(problem["input"], int):
        step = problem["ctx"]["multiple_of"]
        below = problem["input"] // step * step
        says += f": {below or step} or {below + step if below else 2 * step}"
    if fault == "string_type" and isinstance(problem["input"], int | float | datetime.date):
        says += "; in quotes it is a string"
    if fault == "list_type" and isinstance(problem["input"], str) and "," in problem["input"]:
        says = f"not a list; several are written in brackets: [{problem['input']}]"
    if is_rule and keys:
        return f"{where}: {shown}: {says}"
    given = str(problem["input"]) if isinstance(problem["input"], datetime.date) else repr(problem["input"])
    return f"{where}: {shown}: {given}: {says}" if keys else f"{where}: {says}"


def _place(file: str, lines: Lines, path: Path) -> str:
    """file:line of the nearest key above a path that the file has."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return f"{file}:{lines[path[:end]]}"
    return file


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _walk(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[Path, Any]:
    """A location of pydantic's without the tags and types of unions in it, which are no keys of the file; and
    the type of what is there."""
    keys: list[str | int] = []
    annotation: Any = kind
    for part in loc:
        models = _models_in(annotation)
        owner = next((m for m in models if part in m.model_fields), None)
        tagged = next((m for m in models if _tag(m) == part), None)
        if owner is None and tagged is not None:
            annotation = tagged
            continue
        if owner is None and (choices := _choices(annotation)):
            annotation = choices.get(str(part))
            continue
        keys.append(part)
        annotation = _item_of(annotation) if owner is None else owner.model_fields[str(part)].annotation
    return tuple(keys), annotation


def _tags(problem: Any, annotation: Any) -> list[str]:
    expected = problem.get("ctx", {}).get("expected_tags")
    if expected:
        return [tag.strip().strip("'") for tag in expected.split(",")]
    return [tag for model in _models_in(annotation) if (tag := _tag(model)) is not None]


def _tag(model: type[BaseModel]) -> str | None:
    """What `backend` must be for a model to be chosen; "plugin" for one that takes any import path."""
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


def _choices(annotation: Any) -> dict[str, Any]:
    """{pydantic's name: type} of what may be one of several plain types, `str | list[str]`; else nothing."""
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return {}
    several = [one for one in typing.get_args(annotation) if one is not type(None)]
    named = {
        one.__name__ if isinstance(one, type) and not typing.get_args(one) else str(one): one
        for one in several
    }
    return named if len(several) > 1 else {}


def _item_of(annotation: Any) -> Any:
    """The type of the values of a dict or list type."""
    arguments = typing.get_args(annotation)
    return arguments[-1] if arguments else None
