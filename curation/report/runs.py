"""`persona runs`: the run folders below a folder, and what each has come to."""

from typing import Any

from curation.errors import ConfigError, PersonaError
from curation.run_folder import pipeline_of
from curation.status import read_status
from curation.storage import exists, join, list_names

_DEPTH = 2  # runs/first, and runs/demo/run


def list_runs(folder: str) -> list[dict[str, Any]]:
    """{run, pipeline, state, collection, groups, photos, config} of each run in `folder` or one below it.

    A run that another version wrote has pipeline None; numbers that are not known yet are None. Raises
    ConfigError where there is no such folder.
    """
    if not exists(folder):
        raise ConfigError(f"{folder}: there is no such folder")
    return [_entry(run) for run in _runs(folder, _DEPTH)]


def _runs(folder: str, depth: int) -> list[str]:
    if exists(join(folder, "run.yaml")):
        return [folder]
    if depth == 0:
        return []
    below = (join(folder, name) for name in list_names(folder) if not name.startswith("."))
    return [run for place in below for run in _runs(place, depth - 1)]


def _entry(run: str) -> dict[str, Any]:
    status = read_status(run)
    try:
        pipeline: str | None = pipeline_of(run)[0]
    except PersonaError:
        pipeline = None
    known = ("state", "collection", "groups", "photos", "config")
    return {"run": run, "pipeline": pipeline, **{key: status.get(key) for key in known}}


def run_lines(runs: list[dict[str, Any]]) -> list[str]:
    """For people: one line a run."""
    heads = ("run", "pipeline", "state", "collection", "groups", "photos", "config")
    rows = [heads, *(tuple("–" if run[key] is None else str(run[key]) for key in heads) for run in runs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if 3 <= i < 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
