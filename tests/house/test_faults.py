"""The harness of faults as a user runs it, one kill of each quick kind; and a store that is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, environment, persona, settings, write_config


def faults(*words: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), printed


def test_a_killed_command_tool_and_server_and_a_full_disk_end_in_the_undisturbed_bytes(
    tmp_path: Path,
) -> None:
    kinds = ["driver", "shard_tools", "vlm_server"]
    if os.geteuid() == 0:
        kinds.append("full_disk")
    code, found, printed = faults(
        "--each", "1", "--minutes", "8", "--folder", str(tmp_path), "--kinds", *kinds
    )
    assert code == 0, printed
    assert found["differing"] == [], printed
    unavailable = found["unavailable"]
    assert isinstance(unavailable, dict)
    assert found["kills"] == found["identical"] == len(kinds) - len(unavailable)
    assert list(tmp_path.iterdir()) == []


def test_a_store_where_nobody_answers_when_a_run_begins_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    config = write_config(tmp_path / "p.yaml", settings(write_folder(tmp_path / "photos", collection(1, 1))))
    words = ("curate", "drawn", "--config", config, "--out", "s3://nowhere/run", "--engine", "inline")
    done = persona(*words, alone=True)  # clients of stores are kept for a process
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "127.0.0.1:9" in done.stderr
