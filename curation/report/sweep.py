"""What if a threshold were elsewhere? Counts over its range from stored scores; no model is asked.

    KEY                     a range around the threshold is chosen by the scores
    KEY=LOW:HIGH[:STEP]     this one, both ends included

Where a truth is given, each point has precision and recall, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from curation.declared import keys_of
from curation.errors import ConfigError
from curation.evaluation.truth import Truth
from curation.identities.phase import Identity
from curation.outfits.phase import Outfits
from curation.people.stages import STAGES as PEOPLE
from curation.photos.screen import Screen
from curation.report.sweep_counts import (
    Question,
    Sweep,
    sweep_identities,
    sweep_pairs,
    sweep_people,
    sweep_photos,
)
from curation.settings import PipelineSettings
from curation.settings.base import setting_of

STEPS = 16
_MOST_POINTS = 200
_LOG_SPAN = 1000.0
_BELOW = 0.75  # of the threshold: scores below it may have no one, and still be asked about
_AROUND = 0.2  # of a cosine on either side, where no score tells the range


Span = Callable[[str], tuple[float, float] | None]
"""Where the stored scores lie that a key is compared with."""


def sweep(run: str, pipeline: PipelineSettings, wanted: str, truth: Truth | None, span: Span) -> Sweep:
    """Sweeps `KEY` or `KEY=LOW:HIGH[:STEP]`. Raises ConfigError for another key or range."""
    key, current, text = _named(pipeline, wanted)
    values = _given(key, text, current) if text else _chosen(key, current, span(key))
    asked = Question(run, key, current, _settings(pipeline, wanted, key, values), truth)
    if key == Outfits.pairs.key:
        return sweep_pairs(asked)
    if key in keys_of([Identity]):
        return sweep_identities(asked)
    return sweep_photos(asked) if key in keys_of([Screen]) else sweep_people(asked)


def check_sweep(pipeline: PipelineSettings, wanted: str) -> None:
    """Raises ConfigError where `wanted` cannot be swept; reads nothing."""
    key, current, text = _named(pipeline, wanted)
    if text:
        _settings(pipeline, wanted, key, _given(key, text, current))


def _named(pipeline: PipelineSettings, wanted: str) -> tuple[str, float, str]:
    """The key, what the run had, and the text of the range."""
    key, _, text = wanted.partition("=")
    current = setting_of(pipeline, key)
    if not isinstance(current, int | float) or isinstance(current, bool) or key not in sweepable():
        known = ", ".join(sweepable())
        raise ConfigError(f"--sweep {key}: is no threshold that can be swept; choose of {known}")
    return key, current, text


def _settings(
    pipeline: PipelineSettings, wanted: str, key: str, values: Sequence[float]
) -> list[tuple[float, PipelineSettings]]:
    """The values that the key may have, each with the settings that have it."""
    found = [(value, changed) for value in values if (changed := _with(pipeline, key, value)) is not None]
    if not found:
        raise ConfigError(f"--sweep {wanted}: no value of this range is one that {key} may have")
    return found


def sweepable() -> list[str]:
    """Keys that `sweep` takes: of the stages that can decide again from what is stored."""
    return sorted(keys_of([Screen, *PEOPLE, Identity]) | {Outfits.pairs.key})


def _given(key: str, text: str, current: float) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or numbers[0] > numbers[1] or not all(map(np.isfinite, numbers)):
        raise ConfigError(f"--sweep {key}={text}: a range is LOW:HIGH or LOW:HIGH:STEP")
    low, high = numbers[:2]
    step = numbers[2] if len(numbers) == 3 else (high - low) / STEPS or 1.0
    if step <= 0 or (high - low) / step > _MOST_POINTS:
        raise ConfigError(f"--sweep {key}={text}: at most {_MOST_POINTS} steps, each above 0")
    count = int((high - low) / step + 1e-9) + 1
    return _distinct([low + i * step for i in range(count)], current)


def _chosen(key: str, current: float, span: tuple[float, float] | None) -> list[float]:
    if span is None and key in keys_of([Identity]):
        low, high = current - _AROUND, current + _AROUND
    elif span is None:
        low, high = 0.0, 2 * current or 1.0
    else:
        low, high = min(span[0], _BELOW * current), span[1]
    # Ratios reach over powers of ten.
    spaced = np.geomspace if low > 0 and high / low > _LOG_SPAN else np.linspace
    return _distinct([*spaced(low, high, STEPS + 1).tolist(), current], current)


def _distinct(values: Sequence[float], current: float) -> list[float]:
    """In order, each once; whole numbers where the setting is one, otherwise with four digits."""
    if isinstance(current, int):
        return sorted({round(value) for value in values})
    return sorted({float(f"{value:.4g}") if value != current else value for value in values})


def _with(pipeline: PipelineSettings, key: str, value: float) -> PipelineSettings | None:
    """The settings with one changed; None where it may not have this value."""
    changed: dict[str, Any] = pipeline.model_dump(mode="json")
    place = changed
    *sections, name = key.split(".")
    for section in sections:
        place = place[section]
    place[name] = value
    try:
        return PipelineSettings.model_validate(changed)
    except ValidationError:
        return None


def sweep_lines(found: Sweep) -> list[str]:
    """For people: one line a point, the run's own value marked."""
    with_truth = any(point.precision is not None or point.recall is not None for point in found.points)
    lines = [f"{found.key}: {found.says}"]
    heads = [found.key.rsplit(".", 1)[1], "kept", "unmeasured"] + ["precision", "recall"] * with_truth
    rows = [heads]
    for point in found.points:
        row = [f"{point.value:g}", str(point.kept), str(point.unmeasured or "")]
        if with_truth:
            row += ["–" if score is None else f"{score:.4f}" for score in (point.precision, point.recall)]
        rows.append(row)
    if not any(point.unmeasured for point in found.points):
        rows = [row[:2] + row[3:] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        line = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        is_current = number > 0 and found.points[number - 1].value == found.current
        lines.append(line + ("  ← the run" if is_current else ""))
    return lines
