"""The pipeline `drawn` over a drawn collection, run through the real command line."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from persona import main

ROOT = Path(__file__).resolve().parent.parent


def settings(source: Path | str, kind: str = "folder", **engine: Any) -> dict[str, Any]:
    """The pipeline's settings; keys of the section `engine` by name."""
    return {
        "seed": 7,
        "source": {"kind": kind, "path": str(source)},
        "photos": {"screen": {"min_side_px": 100}},
        "people": {
            "measure": "all",
            "detect": {"by": {"backend": "tests.drawn_models:DrawnDetector"}},
            "face": {
                "find": {"backend": "tests.drawn_models:DrawnFaceFinder"},
                "embed": {"backend": "tests.drawn_models:DrawnEmbedder"},
            },
            "segment": {"by": {"backend": "tests.drawn_models:DrawnSegmenter"}},
            "regions": {"by": {"backend": "tests.drawn_models:DrawnParser"}},
        },
        "identities": {"link_cosine": 0.8, "merge_cosine": 0.8, "prototype_cosine": 0.8},
        "outfits": {"judge": {"backend": "appearance", "cut": 0.85}},
        "shards": {"max_groups": 4},
        "engine": {"fragment_rows": 16, **engine},
    }


def write_config(file: Path, pipeline: dict[str, Any]) -> Path:
    """A pipelines.yaml with the one pipeline `drawn`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    return file


def command(*words: str | Path) -> list[str]:
    """The command line as this Python runs it."""
    return [sys.executable, "-m", "persona", *map(str, words)]


def environment(calls: Path | None = None) -> dict[str, str]:
    """The environment of a command; with `calls`, models' calls are noted there."""
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    found.pop("PERSONA_CALLS", None)
    if calls is not None:
        found["PERSONA_CALLS"] = str(calls)
    return found


def persona(
    *words: str | Path, calls: Path | None = None, alone: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, in this process: it starts in no time, where a new one imports for seconds.

    `alone`: in a process of its own, as a shell would; so does every command that would start Ray.
    """
    if alone or (words[0] in ("curate", "retry", "plan") and "inline" not in words):
        return subprocess.run(
            command(*words), cwd=ROOT, env=environment(calls), capture_output=True, text=True, timeout=300
        )
    out, errors = io.StringIO(), io.StringIO()
    with chdir(ROOT), _environment_of(calls), redirect_stdout(out), redirect_stderr(errors):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # usage
            code = int(end.code or 0)
    return subprocess.CompletedProcess(command(*words), code, out.getvalue(), errors.getvalue())


@contextmanager
def _environment_of(calls: Path | None) -> Iterator[None]:
    before, wanted = dict(os.environ), environment(calls)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def curate(
    config: Path, out: Path, *words: str, calls: Path | None = None, alone: bool = False
) -> dict[str, Any]:
    """Runs the pipeline `drawn` and returns its summary; fails the test when the run fails."""
    options = () if "--engine" in words else ("--engine", "inline")
    done = persona(
        "curate",
        "drawn",
        "--config",
        config,
        "--out",
        out,
        "--json",
        "--quiet",
        "--allow-empty",  # of so few photos
        *options,
        *words,
        calls=calls,
        alone=alone,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def asked(calls: Path) -> Iterator[tuple[str, str]]:
    """(stage, id) of every call that was noted."""
    for file in sorted(calls.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            for name in entry["ids"]:
                yield entry["stage"], name


def rows_of(folder: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a barrier."""
    return list(pq.read_table(folder, columns=columns).to_pylist())


def photos_with_people(run: Path) -> dict[str, dict[str, Any]]:
    """{file name: the row of a photo as the phase `people` left it, with its rows of `people/`}."""
    found = {row["source_key"]: {**row, "people": []} for row in rows_of(run / "people" / "_photos")}
    for row in rows_of(run / "people"):
        found[row["source_key"]]["people"].append(row)
    return {photo["file_name"]: photo for photo in found.values()}


def counts_of(summary: dict[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    """{stage: (in, kept, rejected, failed)} of a summary."""
    return {
        entry["stage"]: (entry["in"], entry["kept"], entry["rejected"], entry["failed"])
        for entry in summary["stages"]
    }
