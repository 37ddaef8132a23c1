"""What all settings of training share: frozen, strict, readable from YAML."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Settings(BaseModel):
    """An unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


# YAML and JSON have lists only.
Sizes = Annotated[tuple[int, ...], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]


def first_fault(error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong with settings of a kind, in one line: the dotted path and the fault; for an unknown key
    the nearest one that there is."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    said = fault["msg"]
    if fault["type"] == "extra_forbidden":
        said = f"there is no such setting{or_nearest(path[-1], _keys_at(kind, path[:-1]))}"
    return ": ".join(filter(None, [".".join(path), said]))


def or_nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest one, or all that there are."""
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f": there are {', '.join(names)}"


def _keys_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        kind = annotation
    return list(kind.model_fields)
