"""deploy/slurm/: what its scripts ask of Slurm, and how they end when a node, or the time, is gone.

Slurm is drawn: each program that the scripts call is a few lines of shell, and all nodes are this machine.
"""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.drawn_pipeline import ROOT

SLURM = ROOT / "deploy/slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))
# The port of Ray's head, and nothing behind it.
LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"


def start(
    script: str, place: Path, programs: Mapping[str, str], words: Mapping[str, str]
) -> subprocess.Popen[str]:
    """A job on such a Slurm."""
    for name, text in programs.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n")
        (place / name).chmod(0o755)
    path = f"{place}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.Popen(
        ["bash", SLURM / script], env={"SLURM_JOB_ID": "7", "PATH": path, **words},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def curate(place: Path, start_s: int = 20, **steps: str) -> subprocess.Popen[str]:
    """A curation on two unequal nodes. steps: what `srun` does for head, worker, ready and driver."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    does = {
        "head": f'exec {sys.executable} -c "{LISTEN}" {port}',
        "worker": "sleep 60",
        "ready": "cat > /dev/null",
        "driver": "exit 0",
    } | steps
    programs = {
        "srun": f"""echo "$*" >> {place}/said
            case "$*" in
            *hostname*) echo 127.0.0.1;;
            *"ray start --head"*) {does["head"]};;
            *"ray start"*) {does["worker"]};;
            *"python -"*) {does["ready"]};;
            *"persona curate"*) {does["driver"]};;
            esac""",
        "scontrol": f"case $1 in show) echo node1; echo node2;; *) echo scontrol $* >> {place}/said;; esac",
        "scancel": f"echo scancel $* >> {place}/said; touch {place}/told",
    }
    words = {
        "PIPELINE": "p", "OUT": "o", "RAY_PORT": str(port), "START_S": str(start_s), "TMPDIR": str(place),
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_CPUS_PER_NODE": "96,64",
    }  # fmt: skip
    return start("curate.sbatch", place, programs, words)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_batch_script_is_one_that_bash_reads(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_job_asks_for_gpus_and_for_all_memory_and_comes_again(script: Path) -> None:
    asked = re.findall(r"^#SBATCH --(\S+)$", script.read_text(), re.MULTILINE)
    assert {"gpus-per-node=8", "mem=0", "exclusive", "requeue"} <= set(asked)


def test_each_step_has_the_cores_and_the_memory_of_its_node(tmp_path: Path) -> None:
    assert curate(tmp_path).wait(30) == 0
    steps = [line for line in (tmp_path / "said").read_text().splitlines() if "hostname" not in line]
    assert len(steps) == 4  # head, worker, the wait for both, the driver
    for step in steps:
        cores = "64" if "--nodelist=node2" in step else "96"
        assert f"--cpus-per-task={cores} --cpu-bind=none --mem=0 " in step
    assert ["node2" in step for step in steps].count(True) == 1
    assert "--log-format json" in steps[-1]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ({"head": "echo no such card; exit 1"}, ["Ray's head on node1 has ended:", "no such card"]),
        ({"head": "echo slow; exec sleep 60"}, ["did not open port", "slow"]),
        ({"worker": "echo no card; exit 1", "ready": "sleep 60"}, ["Ray on node2 has ended:", "no card"]),
        ({"ready": "echo 1 of 2 nodes have joined; exit 1"}, ["the nodes are not ready:", "1 of 2 nodes"]),
    ],
    ids=["the head ends", "the head does not come up", "a worker ends", "a worker does not join"],
)  # fmt: skip
def test_a_node_that_does_not_come_up_ends_the_job_with_its_log(
    steps: dict[str, str], says: list[str], tmp_path: Path
) -> None:
    job = curate(tmp_path, start_s=3, **steps)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 1
    assert all(word in errors for word in says), errors
    assert "persona curate" not in (tmp_path / "said").read_text()


def test_a_curation_that_is_told_to_stop_has_its_driver_told_and_comes_again(tmp_path: Path) -> None:
    job = curate(tmp_path, driver=f"until [ -e {tmp_path}/told ]; do sleep 0.05; done; exit 130")
    deadline = time.monotonic() + 30
    while "persona curate" not in ((tmp_path / "said").read_text() if (tmp_path / "said").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.terminate()
    assert job.wait(30) == 0
    assert (tmp_path / "said").read_text().splitlines()[-2:] == [
        "scancel --signal=TERM 7",
        "scontrol requeue 7",
    ]


def test_a_training_that_is_told_to_stop_has_its_ranks_told_and_comes_again(tmp_path: Path) -> None:
    said = tmp_path / "said"
    # A step whose tasks end with 1 once they are told, as torchrun does, and which must not be told itself.
    programs = {
        "srun": f"""case "$*" in *hostname*) echo 127.0.0.1; exit;; esac
            trap 'echo killed >> {said}; exit 1' TERM
            until [ -e {tmp_path}/told ]; do sleep 0.05; done; echo saved >> {said}; exit 1""",
        "scancel": f"echo scancel $* >> {said}; touch {tmp_path}/told",
        "scontrol": f"case $1 in show) echo node1;; *) echo scontrol $* >> {said};; esac",
    }
    words = {
        "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_CPUS_PER_NODE": "96(x2),8,64",
        "CONFIG": "c", "SHARDS": "s", "OUT": "o",
    }  # fmt: skip
    job = start("train.sbatch", tmp_path, programs, words)
    time.sleep(1)
    job.terminate()
    assert job.wait(30) == 0
    assert said.read_text().splitlines() == ["scancel --signal=TERM 7", "saved", "scontrol requeue 7"]
