"""`persona runs`: the run folders below a folder, and what each has come to."""

from contextlib import suppress
from typing import Any

from curation.errors import ConfigError, PersonaError
from curation.run_folder import Run
from curation.status import read_status
from curation.storage import exists, join, list_names

_DEPTH = 2  # runs/first, and runs/demo/run


def list_runs(folder: str) -> list[dict[str, Any]]:
    """{run, pipeline, state, sample, collection, groups, photos, config} of each run in or below `folder`.

    Two levels are looked through. A run that another version wrote has pipeline None, one that cannot be read
    the state `damaged`; `sample`: it is that of a plan. Numbers that are not known yet are None. Raises
    ConfigError where there is no such folder.
    """
    if not exists(folder):
        raise ConfigError(f"{folder}: there is no such folder")
    return [_entry(run) for run in _runs(folder, _DEPTH)]


def _runs(folder: str, depth: int) -> list[str]:
    if Run(folder).exists():
        return [folder]
    if depth == 0:
        return []
    below = (join(folder, name) for name in list_names(folder) if not name.startswith("."))
    return [run for place in below for run in _runs(place, depth - 1)]


def _entry(run: str) -> dict[str, Any]:
    pipeline, sample, status = None, False, {"state": "damaged"}
    with suppress(PersonaError, OSError, ValueError):  # ValueError: pyarrow's, of a file that is no fragment
        status = read_status(run)
    with suppress(PersonaError):
        sample = Run(run).is_sample()
        pipeline = Run(run).pipeline()[0]
    known = ("collection", "groups", "photos", "config")
    about = {"run": run, "pipeline": pipeline, "state": status["state"], "sample": sample}
    return {**about, **{key: status.get(key) for key in known}}


def run_lines(runs: list[dict[str, Any]]) -> list[str]:
    """For people: one line a run."""
    if not runs:
        return ["no runs"]
    heads = ("run", "pipeline", "state", "collection", "groups", "photos", "config")
    shown = [{**run, "state": "plan's sample" if run["sample"] else run["state"]} for run in runs]
    rows = [heads, *(tuple("–" if run[key] is None else str(run[key]) for key in heads) for run in shown)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if 3 <= i < 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
