"""What all settings share: strictness, thresholds, resources, backends chosen by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.fields import FieldInfo

from curation.fingerprint import fingerprint

Moves = Literal["measurements", "decisions", "nothing"]


class Settings(BaseModel):
    """Frozen and strict: an unknown key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    def measurement(self) -> dict[str, Any]:
        """The part of the settings that measurements depend on: all but thresholds and resources."""
        return _without(self, ("threshold", "resource"))

    def ruling(self) -> dict[str, Any]:
        """The part of the settings that results depend on: all but resources."""
        return _without(self, ("resource",))

    def without_places(self) -> dict[str, Any]:
        """The part of `ruling()` that is no path: the same for one collection wherever it lies."""
        return _without(self, ("resource",), places=False)

    def hash(self) -> str:
        """A short hash of `ruling()`, stamped on decisions."""
        return fingerprint(self.ruling())


def _without(settings: BaseModel, kinds: tuple[str, ...], places: bool = True) -> dict[str, Any]:
    """The settings without fields of some kinds, and without paths where `places` is false."""
    kept: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        if _kind_of(info) in kinds or (is_path(info) and not places):
            continue
        value = getattr(settings, name)
        if isinstance(value, dict):
            value = {
                k: _without(v, kinds, places) if isinstance(v, BaseModel) else v for k, v in value.items()
            }
        kept[name] = _without(value, kinds, places) if isinstance(value, BaseModel) else value
    return kept


def _kind_of(info: FieldInfo) -> Any:
    extra = info.json_schema_extra
    return extra.get("kind") if isinstance(extra, dict) else None


def is_path(info: FieldInfo) -> bool:
    """Whether a field was made with `path()`."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("is_path") is True


def threshold(default: Any = ..., **constraints: Any) -> Any:
    """A field that is compared with stored scores: moving it re-runs decisions and no model."""
    return Field(default, json_schema_extra={"kind": "threshold"}, **constraints)


def resource(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes how fast or where a phase runs, and never its result."""
    return Field(default, json_schema_extra={"kind": "resource"}, **constraints)


def path(default: Any = ..., moves: Moves = "measurements", **constraints: Any) -> Any:
    """A field that says where something lies: made absolute before a run starts, and told to nobody.

    moves  what changes with it: "measurements" as with a plain field, "decisions" as with a threshold, or
           "nothing" as with a resource. A dataset is the same wherever its photos lay: `without_places`.
    """
    kind = {"measurements": "input", "decisions": "threshold", "nothing": "resource"}[moves]
    return Field(default, json_schema_extra={"kind": kind, "is_path": True}, **constraints)


class Resources(Settings):
    """What one phase may use. One worker is one process (a Ray actor) that holds its models."""

    workers: int = Field(1, ge=1, le=4096, description="processes of this phase; fixed, not scaled")
    num_cpus: float = Field(1, ge=0, le=1024, description="CPUs reserved for each worker")
    num_gpus: float = Field(0, ge=0, le=16, description="GPUs reserved for each worker")
    memory_gib: float | None = Field(None, gt=0, description="memory reserved for each worker")
    threads: int = Field(1, ge=1, le=256, description="threads of torch, ONNX and OpenCV per worker")


class PluginBackend(Settings):
    """A backend of your own, by import path; it is built as Class(settings, models)."""

    backend: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:Class")
    model: str | None = Field(None, description="name of a model card, if it needs weights")
    batch_size: int = Field(1, ge=1, le=4096, description="photos in one call, where it takes many")
    options: dict[str, Any] = Field(default_factory=dict, description="passed on as they are")


@dataclass(frozen=True)
class BackendKind:
    """What a field's backends do (`detector`, `judge`, …): the first half of their names in `BACKENDS`."""

    name: str


def backend_choice(kind: str, *choices: type[Settings]) -> Any:
    """The type of a field that chooses one of `choices` by its key `backend`, or a plugin."""

    def tag_of(value: Any) -> str | None:
        name = value.get("backend") if isinstance(value, dict) else getattr(value, "backend", None)
        return "plugin" if isinstance(name, str) and ":" in name else name

    tagged = [Annotated[choice, Tag(choice.model_fields["backend"].default)] for choice in choices]
    tagged.append(Annotated[PluginBackend, Tag("plugin")])
    return Annotated[Union[tuple(tagged)], Discriminator(tag_of), BackendKind(kind)]  # noqa: UP007


def chosen_backends(settings: BaseModel) -> list[tuple[str, str, Any]]:
    """(key path, kind, settings) of every backend that is chosen inside `settings`, those of plugins too."""
    found: list[tuple[str, str, Any]] = []
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if not isinstance(value, BaseModel):
            continue
        kinds = [kind.name for kind in _said_of(info) if isinstance(kind, BackendKind)]
        found += [(name, kind, value) for kind in kinds]
        found += [(f"{name}.{path}", kind, chosen) for path, kind, chosen in chosen_backends(value)]
    return found


def _said_of(info: FieldInfo) -> Iterator[Any]:
    """What `Annotated` says of a field, also inside of `… | None`."""
    yield from info.metadata
    annotations = [info.annotation]
    while annotations:
        annotation = annotations.pop()
        yield from getattr(annotation, "__metadata__", ())
        annotations += get_args(annotation)


def setting_of(settings: BaseModel, key: str) -> Any:
    """The value of a key path, keys that a preset sets filled in; None where there is no such key."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name, None)
        if hasattr(value, "resolved"):
            value = value.resolved()
    return value


def model_names(settings: BaseModel) -> list[tuple[str, str]]:
    """(key path, card name) of every field called `model` inside `settings`."""
    found: list[tuple[str, str]] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found += [(f"{name}.{path}", card) for path, card in model_names(value)]
        elif name == "model" and isinstance(value, str):
            found.append((name, value))
    return found
