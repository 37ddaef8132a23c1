"""A Ray cluster of three nodes, started by deploy/slurm/curate.sbatch, of which one is lost in the middle."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.drawn_pipeline import ROOT, curate, environment, files_of, settings, write_config

NODES = ("alpha", "beta", "gamma")
# Slurm, as far as the script asks for it: each node is this machine, each step a process.
SRUN = """#!{python}
import os, sys, time
words = sys.argv[1:]
options = [word for word in words if word.startswith("--nodelist=")]
while words[0].startswith("--"):
    words.pop(0)
if words[0] == "hostname":
    print("127.0.0.1")
    raise SystemExit
if words[:2] == ["ray", "start"]:
    # Nodes that start at the same moment on one machine take each other's sockets.
    time.sleep(8 * ("--nodelist={last}" in options))
    open(os.path.join(os.environ["STEPS"], options[0].partition("=")[2]), "w").write(str(os.getpid()))
os.execvp(words[0], words)
"""
SCONTROL = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] && echo "$3" | tr , '\\n'
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on three nodes; what it started is ended with the test."""
    programs, steps = tmp_path / "bin", tmp_path / "steps"
    programs.mkdir()
    steps.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable, last=NODES[-1])), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    yield {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "STEPS": str(steps),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": ",".join(NODES),
        "SLURM_JOB_CPUS_PER_NODE": f"{os.cpu_count()}(x{len(NODES)})",
        "RAY_PORT": str(port),
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(128 * 2**20),
    }
    for step in steps.iterdir():
        lose(step)


def lose(step: Path) -> None:
    """What a node does whose power fails: all of its processes are gone at once."""
    try:
        process = psutil.Process(int(step.read_text()))
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def working(calls: Path) -> set[str]:
    """Processes that have asked the detector."""
    return {file.stem for file in calls.glob("*.jsonl") if "detect" in file.read_text()}


def test_a_run_that_loses_a_node_of_its_cluster_ends_with_the_same_shards(
    photos: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    pipeline = settings(photos, fragment_rows=4)
    pipeline["people"]["slice_rows"] = 2
    curate(write_config(tmp_path / "quick.yaml", pipeline), tmp_path / "whole")
    # Long enough for every node to join; a worker takes a whole node, so each node has one.
    pipeline["people"]["detect"]["by"]["options"] = {"seconds": 0.6}
    pipeline["people"]["resources"] = {"workers": len(NODES), "num_cpus": os.cpu_count()}
    config = write_config(tmp_path / "pipelines.yaml", pipeline)

    calls, out = tmp_path / "calls", tmp_path / "run"
    # To a file: the nodes go on when the job's script ends, and would keep a pipe open.
    with (tmp_path / "errors.txt").open("w") as errors:
        job = subprocess.Popen(
            ["bash", str(ROOT / "deploy" / "slurm" / "curate.sbatch")],
            env=environment(calls) | slurm | {
                "PIPELINE": "drawn", "OUT": str(out), "PERSONA_ARGS": f"--config {config}",
            },
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 150
        while len(working(calls)) < len(NODES):
            assert time.monotonic() < deadline
            assert job.poll() is None, (tmp_path / "errors.txt").read_text()
            time.sleep(0.05)
        lose(Path(slurm["STEPS"]) / NODES[-1])
        job.wait(150)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == 0, (tmp_path / "errors.txt").read_text()
    # The slower detector is another config, which dataset.json and the card name.
    found, expected = files_of(out / "shards"), files_of(tmp_path / "whole" / "shards")
    data = {name for name in expected if name.endswith((".tar", ".parquet", ".arrow"))}
    assert len(data) >= 3
    assert {name: found[name] for name in data} == {name: expected[name] for name in data}
