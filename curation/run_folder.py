"""The run folder: run.yaml, status.json while it runs, summary.json at its end."""

import json
import os
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml
from pydantic import ValidationError

from curation.engine import Job
from curation.errors import ConfigError
from curation.settings import PipelineSettings
from curation.storage import exists, join, read_bytes, remove_unfinished, write_bytes

HEARTBEAT_S = 10.0  # a running status is written at least this often


def code_version() -> str:
    """The installed version of persona."""
    try:
        return version("persona")
    except PackageNotFoundError:
        return "not installed"


def run_at(folder: str) -> str:
    """The run folder that is meant: the folder itself, or the `run` in it, where the demo keeps its own."""
    inner = join(folder, "run")
    held = not exists(join(folder, "run.yaml")) and exists(join(inner, "run.yaml"))
    return inner if held else folder


def write_run(job: Job, name: str, sample: bool = False) -> None:
    """run.yaml: the resolved settings, the code's version, the weights' hashes. No credentials.

    `sample`: the run is of a sample, as `persona plan` makes it. Raises ConfigError where the folder holds
    a run of the other kind: either would remove what the other did.
    """
    if _holds_other_kind(job.run, sample):
        held = "the whole collection's run" if sample else "the sample of `persona plan`"
        raise ConfigError(f"--out {job.run}: holds {held}; choose another folder")
    remove_unfinished(job.run)
    record = {
        "pipeline": name,
        **({"sample": True} if sample else {}),
        "persona": code_version(),
        "models": {m.name: {"path": m.path, "sha256": m.sha256} for m in job.models.values()},
        "settings": job.pipeline.model_dump(mode="json"),
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    write_bytes(join(job.run, "run.yaml"), text.encode())


def pipeline_of(run: str) -> tuple[str, PipelineSettings]:
    """The name and settings that a run was last started with. Raises ConfigError."""
    record = _run_yaml(run)
    try:
        return str(record["pipeline"]), PipelineSettings.model_validate(record["settings"])
    except (KeyError, TypeError, ValidationError):
        raise ConfigError(f"{run}: its run.yaml was written by another version; use curate") from None


def _holds_other_kind(run: str, sample: bool) -> bool:
    try:
        return exists(join(run, "run.yaml")) and is_sample(run) != sample
    except ConfigError:  # damaged: it is about to be written anew
        return False


def is_sample(run: str) -> bool:
    """Whether a run folder holds the sample of `persona plan`."""
    return bool(_run_yaml(run).get("sample"))


def _run_yaml(run: str) -> dict[str, Any]:
    require_run(run)
    try:
        record = yaml.safe_load(read_bytes(join(run, "run.yaml")))
    except (yaml.YAMLError, UnicodeDecodeError):
        record = None
    if not isinstance(record, dict):
        raise ConfigError(f"{run}: its run.yaml is damaged; the same curate command writes it anew")
    return record


def write_json(run: str, name: str, record: dict[str, Any]) -> None:
    """A JSON file of the run folder, replaced at once."""
    data = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
    write_bytes(join(run, name), data)


def read_json(run: str, name: str) -> dict[str, Any] | None:
    """A JSON file of the run folder, None where there is none. Raises ConfigError for a damaged one."""
    path = join(run, name)
    if not exists(path):
        return None
    try:
        return dict(json.loads(read_bytes(path)))
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: is damaged; remove it, the same curate command writes it anew") from None


def require_run(run: str) -> None:
    """Raises ConfigError unless `run` is a run folder."""
    if not exists(join(run, "run.yaml")):
        raise ConfigError(f"{run}: is no run folder (it has no run.yaml)")


def whoami() -> dict[str, Any]:
    """Which process writes a status."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 1)}
