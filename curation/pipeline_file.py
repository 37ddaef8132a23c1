"""One pipeline of pipelines.yaml: read, changed by --set and validated whole, or a line for each problem."""

from collections.abc import Sequence
from typing import Any

from curation.errors import ConfigError
from curation.excluded.tombstone_store import store_of_file
from curation.settings import PipelineSettings, PipelinesFile
from curation.weights.lock import Lock
from edges.settings_reader import (
    SettingsError,
    assignments,
    near,
    read_yaml,
    set_keys,
    unknown_key,
    validated,
)


def load_pipeline(file: str, name: str, overrides: Sequence[str] = ()) -> PipelineSettings:
    """The pipeline `name` of `file` with `--set` overrides applied, validated whole.

    Its cards state what models.lock beside the file pins. Raises ConfigError with one line for each problem.
    """
    try:
        pipeline = _with_store(_load(file, name, overrides), file)
    except SettingsError as error:
        raise ConfigError(str(error)) from None
    models = pipeline.models.model_copy(update={"cards": Lock(file).obeyed_by(pipeline.models.cards)})
    return pipeline.model_copy(update={"models": models})


def json_schema() -> dict[str, Any]:
    """The JSON schema of pipelines.yaml, for editors."""
    return {
        **PipelinesFile.model_json_schema(),
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipelines.yaml of persona",
    }


def _load(file: str, name: str, overrides: Sequence[str]) -> PipelineSettings:
    data, lines = read_yaml(_text(file), file)
    pipelines = data.get("pipelines") if isinstance(data, dict) else None
    if not isinstance(pipelines, dict) or not pipelines:
        raise SettingsError(f"{file}: no pipelines; the file needs a mapping 'pipelines: NAME: ...'")
    for key in data:
        if key != "pipelines":
            line = lines.get((key,))
            raise SettingsError(
                unknown_key(file if line is None else f"{file}:{line}", str(key), ["pipelines"])
            )
    if name not in pipelines:
        raise SettingsError(f"{file}: no pipeline '{name}'{near(name, [str(key) for key in pipelines])}")
    pipeline = pipelines[name]
    if not isinstance(pipeline, dict):
        raise SettingsError(f"{file}: pipelines.{name}: must be a mapping, not {pipeline!r}")
    changes = assignments(overrides)
    set_keys(pipeline, changes, {"people.full_body": "preset"})
    return validated(
        PipelineSettings, pipeline, file, lines, below=("pipelines", name), changed=list(changes)
    )


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        raise SettingsError(f"{file}: no such file; give another with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None


def _with_store(pipeline: PipelineSettings, file: str) -> PipelineSettings:
    """Runs of one file obey one store of the forgotten, wherever they lie."""
    screen = pipeline.photos.screen
    if screen.forgotten is None:
        screen = screen.model_copy(update={"forgotten": store_of_file(file)})
    return pipeline.model_copy(update={"photos": pipeline.photos.model_copy(update={"screen": screen})})
