"""How a dataset came to be, for its card: what each stage did, and the settings that decided."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from curation.settings import PipelineSettings

_SECTIONS = ("photos", "people", "identities", "outfits", "selection", "captions", "shards")
# What was fitted to a judge's answers, and what a plugin's author put there.
_UNTOLD = ("calibration", "options")


PlaceOf = Callable[[str], Any]
"""What names of stages are sorted by, in the order of the funnel."""


def funnel(counts: Mapping[str, Mapping[str, Any]], place_of: PlaceOf) -> list[dict[str, Any]]:
    """{stage, unit, in, kept, rejected, failed, reasons} of each stage, from {folder: {stage: counts}}."""
    # Workers finish in any order, so the order in which stages were first counted is not one to write down.
    stages = {stage: entry for folder in counts.values() for stage, entry in folder.items()}
    return [{"stage": stage, **stages[stage]} for stage in sorted(stages, key=place_of)]


def telling_settings(pipeline: PipelineSettings) -> dict[str, Any]:
    """{key of pipelines.yaml: value} of all that results depend on, but places and what is not set."""
    ruling = pipeline.without_places()
    return dict(sorted(pair for section in _SECTIONS for pair in _leaves(section, ruling.get(section))))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            if name not in _UNTOLD:
                yield from _leaves(f"{path}.{name}", below)
    elif value is not None and not (isinstance(value, str) and _names_a_place(value)):
        yield path, value


def _names_a_place(value: str) -> bool:
    """Whether a text is a place all the same: a filter's author may have missed `path()`."""
    return "://" in value or "\\" in value or value.startswith(("/", "~", "./", "../"))
