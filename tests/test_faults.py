"""The harness of faults as a user runs it: one kill of each of the quick kinds, each borne."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.drawn_pipeline import ROOT, environment


def faults(*words: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    said = done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), said


def test_a_killed_command_tool_and_server_and_a_full_disk_end_in_the_undisturbed_bytes(
    tmp_path: Path,
) -> None:
    kinds = ["driver", "shard_tools", "vlm_server"]
    if os.geteuid() == 0:
        kinds.append("full_disk")
    code, found, said = faults("--each", "1", "--minutes", "8", "--folder", str(tmp_path), "--kinds", *kinds)
    assert code == 0, said
    assert found["differing"] == [], said
    unavailable = found["unavailable"]
    assert isinstance(unavailable, dict)
    assert found["kills"] == found["identical"] == len(kinds) - len(unavailable)
    assert list(tmp_path.iterdir()) == []
