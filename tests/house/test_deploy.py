"""deploy/: what would be given to a cluster is well formed, and its commands are ones that persona knows."""

# ruff: noqa: N815 (names of the Kubernetes API)

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

import persona
from tests.drawn_pipeline import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.rglob("*.yaml"))
SCRIPTS = sorted(DEPLOY.rglob("*.sbatch"))


class Strict(BaseModel):
    """The fields of Kubernetes' and KubeRay's API references that we use; any other is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Named(Strict):
    name: str
    labels: dict[str, str] = {}


class Probe(Strict):
    httpGet: dict[str, str]
    periodSeconds: int
    failureThreshold: int = 3


class Resources(Strict):
    requests: dict[str, str]
    limits: dict[str, str]


class Mount(Strict):
    name: str
    mountPath: str
    readOnly: bool = False


class Volume(Strict):
    name: str
    persistentVolumeClaim: dict[str, Any] | None = None
    configMap: dict[str, str] | None = None
    emptyDir: dict[str, str] | None = None


class Variable(Strict):
    name: str
    value: str  # a number or true unquoted is refused by Kubernetes


class Container(Strict):
    name: str
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[Variable] = []
    envFrom: list[dict[str, Named]]
    ports: list[dict[str, Any]] = []
    startupProbe: Probe | None = None
    readinessProbe: Probe | None = None
    livenessProbe: Probe | None = None
    resources: Resources
    volumeMounts: list[Mount]


class PodSpec(Strict):
    securityContext: dict[str, Any]
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume]
    restartPolicy: str = "Always"
    terminationGracePeriodSeconds: int = 30


class Pod(Strict):
    spec: PodSpec
    metadata: dict[str, Any] = {}


class Head(Strict):
    rayStartParams: dict[str, str]
    template: Pod


class Workers(Head):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class RayCluster(Strict):
    rayVersion: str
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: dict[str, int] = {}


class RayJob(Strict):
    entrypoint: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: RayCluster


class Job(Strict):
    backoffLimit: int
    podFailurePolicy: dict[str, list[dict[str, Any]]] | None = None
    template: Pod


class Deployment(Strict):
    replicas: int
    selector: dict[str, dict[str, str]]
    strategy: dict[str, Any]
    template: Pod


class Service(Strict):
    selector: dict[str, str]
    ports: list[dict[str, Any]]


class Claim(Strict):
    accessModes: list[str]
    resources: dict[str, dict[str, str]]


KINDS: dict[tuple[str, str], type[Strict]] = {
    ("ray.io/v1", "RayJob"): RayJob,
    ("ray.io/v1", "RayCluster"): RayCluster,
    ("batch/v1", "Job"): Job,
    ("apps/v1", "Deployment"): Deployment,
    ("v1", "Service"): Service,
    ("v1", "PersistentVolumeClaim"): Claim,
}


def objects(file: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """(as it stands, its checked spec) of each object in a manifest."""
    for found in yaml.safe_load_all(file.read_text()):
        assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
        Named.model_validate(found["metadata"])
        yield found, KINDS[found["apiVersion"], found["kind"]].model_validate(found["spec"])


def pods(spec: Any) -> list[PodSpec]:
    """All pods of a spec."""
    cluster = getattr(spec, "rayClusterSpec", spec)
    if isinstance(cluster, RayCluster):
        return [group.template.spec for group in [cluster.headGroupSpec, *cluster.workerGroupSpecs]]
    return [spec.template.spec] if hasattr(spec, "template") else []


def commands() -> list[list[str]]:
    """Every `persona …` that deploy/ would run, cut into words."""
    found = []
    for file in MANIFESTS:
        for _, spec in objects(file):
            if isinstance(spec, RayJob):
                found.append(shlex.split(spec.entrypoint))
            found += [c.command + c.args for pod in pods(spec) for c in pod.containers if c.command]
    return [words[words.index("persona") + 1 :] for words in found]


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_manifest_has_only_fields_that_its_kind_has(file: Path) -> None:
    assert list(objects(file))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_pod_mounts_what_it_declares_and_takes_secrets_from_the_environment_only(file: Path) -> None:
    for _, spec in objects(file):
        for pod in pods(spec):
            declared = {volume.name for volume in pod.volumes}
            for container in pod.containers:
                assert {mount.name for mount in container.volumeMounts} == declared
                assert all(set(source) == {"secretRef"} for source in container.envFrom)
            assert pod.securityContext["runAsNonRoot"] is True


def test_a_server_is_asked_where_its_service_is() -> None:
    documents = {found["kind"]: found for found, _ in objects(DEPLOY / "kubernetes" / "vllm.yaml")}
    service, served = documents["Service"], documents["Deployment"]["spec"]
    assert service["spec"]["selector"] == served["template"]["metadata"]["labels"]
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for name in ("eight-gpus", "eight-nodes"):
        ((_, spec),) = objects(DEPLOY / "kuberay" / f"{name}.yaml")
        assert f"--set outfits.judge.endpoint={address}" in spec.entrypoint
        assert f"--set captions.by.endpoint={address}" in spec.entrypoint


def test_the_cluster_runs_the_ray_that_is_pinned() -> None:
    named = (ROOT / "requirements" / "base.in").read_text().splitlines()
    (pinned,) = [line for line in named if line.startswith("ray[")]
    for file in (DEPLOY / "kuberay").glob("*.yaml"):
        ((_, spec),) = objects(file)
        assert pinned.endswith(f"=={getattr(spec, 'rayClusterSpec', spec).rayVersion}")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_is_understood_up_to_the_files_that_are_not_here(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_VLM_KEY", "of-the-secret")  # kubernetes/vllm.yaml takes it from a secret
    here = {
        "/config/pipelines.yaml": str(ROOT / "pipelines.yaml"),
        "s3://BUCKET": str(tmp_path / "store"),
        "models.path=/models": f"models.path={tmp_path}",
    }
    for name, path in here.items():
        words = [word.replace(name, path) for word in words]
    assert persona.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()[:1]
    assert str(tmp_path) in line  # where weights or data should be; usage and settings are right


def test_a_training_is_given_the_time_that_its_scheduler_gives() -> None:
    ((_, job),) = objects(DEPLOY / "kubernetes" / "train.yaml")
    ((container,), grace) = job.template.spec.containers, job.template.spec.terminationGracePeriodSeconds
    script = (DEPLOY / "slurm" / "train.sbatch").read_text()
    for launch, told_s in (
        (" ".join(container.command + container.args), grace),
        (script, int(re.search(r"--signal=B:TERM@(\d+)", script)[1])),  # type: ignore[index]
    ):
        given = int(re.search(r"--shutdown-timeout=(\d+)", launch)[1])  # type: ignore[index]
        assert told_s - 30 <= given < told_s


def test_a_training_on_slurm_that_is_told_to_stop_has_its_ranks_told_and_comes_again(tmp_path: Path) -> None:
    said = tmp_path / "said"
    # A step whose tasks end with 1 once they are told, as torchrun does, and which must not be told itself.
    programs = {
        "srun": f"""case "$*" in *hostname*) echo 127.0.0.1; exit;; esac
            trap 'echo killed >> {said}; exit 1' TERM
            until [ -e {tmp_path}/told ]; do sleep 0.05; done; echo saved >> {said}; exit 1""",
        "scancel": f"echo scancel $* >> {said}; touch {tmp_path}/told",
        "scontrol": f"case $1 in show) echo node1;; *) echo scontrol $* >> {said};; esac",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    place = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_CPUS_PER_NODE": "96(x2),8,64"}
    words = {"CONFIG": "c", "SHARDS": "s", "OUT": "o", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    job = subprocess.Popen(["bash", DEPLOY / "slurm" / "train.sbatch"], env=place | words)
    time.sleep(1)
    job.terminate()
    assert job.wait(30) == 0
    assert said.read_text().splitlines() == ["scancel --signal=TERM 7", "saved", "scontrol requeue 7"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_batch_script_is_one_that_bash_reads(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
