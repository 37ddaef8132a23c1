"""deploy/: Kubernetes, KubeRay and Prometheus' operator take every manifest; what it names is there; and its
commands are ones that persona knows."""

# ruff: noqa: N815 (names of the Kubernetes API)

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

import persona
from tests.drawn_pipeline import ROOT
from training.recipes import read_method

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(file for room in ("kubernetes", "kuberay") for file in (DEPLOY / room).glob("*.yaml"))
# The oldest in which a Job's podFailurePolicy is no beta, and the newest whose schemas the package has.
KUBERNETES = ("1.31.0", "1.37.0")
RAY_METRICS = 8080  # KubeRay adds this port to containers that name none `metrics`


class Strict(BaseModel):
    """The fields that we use of kinds that are not Kubernetes' own; any other is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Head(Strict):
    """ray.io/v1 of KubeRay 1.6.2; pods are checked as Kubernetes'."""

    rayStartParams: dict[str, str]
    template: dict[str, Any]


class Workers(Head):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class Authentication(Strict):
    mode: Literal["token"]


class RayCluster(Strict):
    rayVersion: str
    authOptions: Authentication
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: dict[Literal["idleTimeoutSeconds"], int] = {}


class RayJob(Strict):
    entrypoint: str
    submissionMode: Literal["SidecarMode"]
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: RayCluster


class Endpoint(Strict):
    """monitoring.coreos.com/v1 of the Prometheus operator 0.95."""

    port: str
    path: str
    interval: str


class PodMonitor(Strict):
    selector: dict[Literal["matchLabels"], dict[str, str]]
    podTargetLabels: list[str] = []
    podMetricsEndpoints: list[Endpoint]


OTHER_KINDS: dict[tuple[str, str], type[Strict]] = {
    ("ray.io/v1", "RayJob"): RayJob,
    ("ray.io/v1", "RayCluster"): RayCluster,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
}


def objects(*files: Path) -> list[dict[str, Any]]:
    """All objects of these manifests."""
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]


ALL = objects(*MANIFESTS)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for found in ALL if found["kind"] == kind]


def templates(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The templates of an object's pods."""
    spec = found.get("spec", {})
    cluster = spec.get("rayClusterSpec", spec)
    if "headGroupSpec" in cluster:
        return [group["template"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
    return [spec["template"]] if "template" in spec else []


PODS = [(found["metadata"]["name"], pod) for found in ALL for pod in templates(found)]


def selected(selector: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Templates whose labels fit matchLabels and, of matchExpressions, In."""
    found = []
    for _, pod in PODS:
        labels = pod["metadata"]["labels"]
        exact = selector.get("matchLabels", {})
        some = selector.get("matchExpressions", [])
        assert all(one["operator"] == "In" for one in some)
        if all(labels.get(key) == value for key, value in exact.items()) and all(
            labels.get(one["key"]) in one["values"] for one in some
        ):
            found.append(pod)
    return found


def ports(pod: Mapping[str, Any]) -> dict[str, int]:
    """{name: number} of a template's containers."""
    return {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }


def commands() -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Every command line that deploy/ would run, cut into words, and the container that it runs in."""
    for found in ALL:
        first = [pod["spec"]["containers"][0] for pod in templates(found)][:1]
        if "entrypoint" in found.get("spec", {}):
            yield shlex.split(found["spec"]["entrypoint"]), first[0]
        for pod in templates(found):
            for container in pod["spec"]["containers"]:
                words = container.get("command", []) + container.get("args", [])
                if words[:2] == ["bash", "-ec"]:
                    lines = words[2].replace("\\\n", " ").splitlines()
                    yield from ((shlex.split(line), container) for line in lines)
                elif words:
                    yield words, container


COMMANDS = [(words, container) for words, container in commands() if "echo" not in words]
OURS = [words[words.index("persona") + 1 :] for words, _ in COMMANDS if "persona" in words]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_a_manifest_is_valid_for_the_versions_that_are_named(file: Path, version: str) -> None:
    for found in objects(file):
        kind = OTHER_KINDS.get((found["apiVersion"], found["kind"]))
        if kind is None:
            kubernetes_validate.validate(found, version, strict=True)
            continue
        assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
        kind.model_validate(found["spec"])
        for pod in templates(found):
            held = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": found["metadata"], "template": pod}
            kubernetes_validate.validate(held, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    (found,) = objects(DEPLOY / "kubernetes/one-gpu.yaml")
    found["spec"]["template"]["spec"]["containers"][0]["volumemounts"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumemounts"):
        kubernetes_validate.validate(found, KUBERNETES[0], strict=True)


def test_the_readme_names_the_versions_that_are_checked() -> None:
    said = (DEPLOY / "README.md").read_text()
    for version in (*KUBERNETES, "KubeRay 1.6.2"):
        assert version.removesuffix(".0") in said


def test_whatever_a_pod_names_is_made_by_a_manifest_or_by_a_command_that_stands_beside_it() -> None:
    told = (DEPLOY / "kubernetes/storage.yaml").read_text()
    made = {(found["kind"], found["metadata"]["name"]) for found in ALL}
    made |= {("Secret", name) for name in re.findall(r"create secret generic (\S+)", told)}
    made |= {("ConfigMap", name) for name in re.findall(r"create configmap (\S+)", told)}
    keys = set(re.findall(r"--from-literal=(\w+)=", told))
    assert "AWS_SECRET_ACCESS_KEY" in keys
    for _, pod in PODS:
        spec = pod["spec"]
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"persistentVolumeClaim", "configMap", "emptyDir"}
        named = {("ServiceAccount", spec["serviceAccountName"])}
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                named.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
            if "configMap" in volume:
                named.add(("ConfigMap", volume["configMap"]["name"]))
        for container in spec["containers"]:
            assert all(set(source) == {"secretRef"} for source in container.get("envFrom", []))
            assert not keys & {one["name"] for one in container.get("env", [])}
            named |= {("Secret", source["secretRef"]["name"]) for source in container.get("envFrom", [])}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in spec["volumes"]}
        assert named <= made
        assert spec["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_every_path_of_a_command_lies_on_a_disk_that_its_container_mounts(words: list[str]) -> None:
    (container,) = [one for line, one in COMMANDS if line is words]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    variables = {one["name"]: one["value"] for one in container.get("env", [])}
    paths = re.findall(r"(?:^|[ =])(/[a-z][\w./-]*)", " ".join([*words, variables.get("PERSONA_MODELS", "")]))
    for path in paths:
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path
    given = dict(zip([word.partition("=")[0] for word in words], [*words[1:], ""], strict=True))
    given |= {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    for option in ("--out", "--to", "--log", "--local-dir"):
        if (path := given.get(option, "")).startswith("/"):
            (mount,) = [of for at, of in mounts.items() if path == at or path.startswith(f"{at}/")]
            assert not mount.get("readOnly"), path
    if "--config" in given and "train" not in words:
        assert given["--config"] in ("/config/pipelines.yaml", "/tmp/pipelines.yaml")


def test_every_port_that_is_asked_is_one_that_listens() -> None:
    for service in of_kind("Service"):
        (pod,) = selected({"matchLabels": service["spec"]["selector"]})
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports(pod)
    for monitor in of_kind("PodMonitor"):
        pods = selected(monitor["spec"]["selector"])
        assert pods
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in ports(pod) for pod in pods)
    for policy in of_kind("NetworkPolicy"):
        listening = {port for pod in selected(policy["spec"]["podSelector"]) for port in ports(pod).values()}
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule.get("ports", [])} <= {*listening, RAY_METRICS}
    for _, pod in PODS:
        for container in pod["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports(pod)


def test_a_server_is_asked_where_its_service_is() -> None:
    (service,) = of_kind("Service")
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    asked = {word.partition("=")[2] for words in OURS for word in words if ".endpoint=" in word}
    assert asked == {address}
    (served,) = [words for words in OURS if words[0] == "serve-vlm"]
    assert served[served.index("--port") + 1] == "8000"


def test_every_pod_is_behind_a_policy_and_those_of_one_cluster_reach_one_another() -> None:
    policies = of_kind("NetworkPolicy")
    for name, pod in PODS:
        (policy,) = [one for one in policies if pod in selected(one["spec"]["podSelector"])]
        open_to = [source for rule in policy["spec"]["ingress"] for source in rule["from"]]
        others = [source["podSelector"] for source in open_to if "namespaceSelector" not in source]
        if pod["metadata"]["labels"]["app"] in ("persona-run", "persona-worker"):
            assert any(pod in selected(other) for other in others), name


def test_the_dashboard_of_ray_is_open_to_its_operator_where_it_must_be_and_to_nobody_elsewhere() -> None:
    hosts = {}
    for found in [*of_kind("RayJob"), *of_kind("RayCluster")]:
        cluster = found["spec"].get("rayClusterSpec", found["spec"])
        hosts[found["kind"]] = cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"]
        assert cluster["authOptions"] == {"mode": "token"}
    assert hosts == {"RayJob": "0.0.0.0", "RayCluster": "127.0.0.1"}
    (policy,) = [one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "persona-runs"]
    (operator,) = [
        rule
        for rule in policy["spec"]["ingress"]
        if {"port": 8265, "protocol": "TCP"} in rule.get("ports", [])
    ]
    assert [source["podSelector"]["matchLabels"] for source in operator["from"]] == [
        {"app.kubernetes.io/component": "kuberay-operator"}
    ]


def test_a_run_can_be_watched_with_the_dashboard() -> None:
    for words in OURS:
        if words[0] == "curate":
            line = (
                " ".join(words)
                .replace("--set=", "--set ")
                .replace("=json", " json")
                .replace("port=", "port ")
            )
            assert "--log-format json" in line
            assert "--quiet" not in words
            assert "--metrics-port 9100" in line
            assert "--set telemetry.metrics_host=0.0.0.0" in line
    monitored = [pod for monitor in of_kind("PodMonitor") for pod in selected(monitor["spec"]["selector"])]
    runs = [pod for _, pod in PODS if pod["metadata"]["labels"]["app"] == "persona-run"]
    assert all(ports(pod)["run-metrics"] == 9100 and pod in monitored for pod in runs)
    assert not any("metrics" in ports(pod) for pod in runs)  # that name is Ray's


def test_a_pod_that_the_cluster_takes_away_is_no_failure_and_a_head_is_not_taken() -> None:
    for job in of_kind("Job"):
        (rule,) = job["spec"]["podFailurePolicy"]["rules"]
        assert rule == {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    budgets = [
        pod for budget in of_kind("PodDisruptionBudget") for pod in selected(budget["spec"]["selector"])
    ]
    for found in [*of_kind("RayJob"), *of_kind("RayCluster")]:
        head, *workers = templates(found)
        terms = head["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ((term,),) = terms.values()
        assert {one["operator"] for one in term["matchExpressions"]} == {"NotIn"}
        assert "tolerations" not in head["spec"]
        assert all(worker["spec"]["tolerations"] for worker in workers)
        assert budgets.count(head) == 1
    (servers,) = [templates(found) for found in of_kind("Deployment")]
    assert budgets.count(servers[0]) == 1


def test_the_cluster_runs_the_ray_that_is_pinned() -> None:
    named = (ROOT / "requirements" / "base.in").read_text().splitlines()
    (pinned,) = [line for line in named if line.startswith("ray[")]
    for found in [*of_kind("RayJob"), *of_kind("RayCluster")]:
        assert pinned.endswith(f"=={found['spec'].get('rayClusterSpec', found['spec'])['rayVersion']}")


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_a_command_is_understood_up_to_the_files_that_are_not_here(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_VLM_KEY", "of-the-secret")  # kubernetes/vllm.yaml takes it from a secret
    here = {
        "/config/pipelines.yaml": str(ROOT / "pipelines.yaml"),
        "/tmp/pipelines.yaml": str(ROOT / "pipelines.yaml"),
        "s3://BUCKET": str(tmp_path / "store"),
        "models.path=/models": f"models.path={tmp_path}",
    }
    for name, path in here.items():
        words = [word.replace(name, path) for word in words]
    # A pull would fetch 20 GiB. Asked for what may be used commercially, it refuses before that.
    pulls = words[:2] == ["models", "pull"]
    assert persona.main([*words, *(["--commercial"] if pulls else [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()[:1]
    assert ("--commercial: " if pulls else str(tmp_path)) in line  # usage and settings are right


def test_the_trainer_finds_on_the_disk_what_the_job_has_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = {
        words[words.index("--local-dir") + 1] for words, _ in COMMANDS if words[:2] == ["hf", "download"]
    }
    for folder in fetched:
        (tmp_path / folder.removeprefix("/models/")).mkdir()
    monkeypatch.setenv("PERSONA_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for stage in ("a", "b"):
        (job,) = objects(DEPLOY / f"kubernetes/train-{stage}.yaml")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert {"name": "PERSONA_MODELS", "value": "/models"} in container["env"]
        config = yaml.safe_load((ROOT / f"training/configs/visual_persona_stage_{stage}.yaml").read_text())
        settings = read_method(config["recipe"], config["method"])
        assert settings is not None
        found = settings.model_dump()
        used = {found["sdxl"]["folder"], found["sdxl"]["vae_folder"], found["dino"]["folder"]}
        assert {path.replace(str(tmp_path), "/models") for path in used} == fetched


def test_the_second_stage_begins_with_what_the_first_has_written() -> None:
    first, second = ([word for word in words if "/training" in word] for words in OURS if words[0] == "train")
    assert first == ["--out=/training/a"]
    assert second == ["--out=/training/b", "--set=start_from=/training/a"]


def test_a_training_is_given_the_time_that_its_scheduler_gives() -> None:
    script = (DEPLOY / "slurm/train.sbatch").read_text()
    launches = [(script, int(re.search(r"--signal=B:TERM@(\d+)", script)[1]))]  # type: ignore[index]
    for words, _ in COMMANDS:
        if words[0] == "torchrun":
            (grace,) = {
                pod["spec"]["terminationGracePeriodSeconds"]
                for name, pod in PODS
                if pod["metadata"]["labels"]["app"] == "persona-train"
            }
            launches.append((" ".join(words), grace))
    assert len(launches) == 3
    for launch, told_s in launches:
        given = int(re.search(r"--shutdown-timeout=(\d+)", launch)[1])  # type: ignore[index]
        assert told_s - 30 <= given < told_s


def test_one_command_shows_the_runs_of_this_machine() -> None:
    (file,) = (DEPLOY / "telemetry").glob("*.yaml")
    composed = yaml.safe_load(file.read_text())
    content = {name: yaml.safe_load(one["content"]) for name, one in composed["configs"].items()}
    services = composed["services"]
    assert {service["network_mode"] for service in services.values()} == {"host"}
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    for service in services.values():
        assert {config["source"] for config in service["configs"]} <= set(content)
        assert not service["image"].endswith(":latest")
    (scraped,) = content["prometheus"]["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["127.0.0.1:${PERSONA_METRICS_PORT:-9100}"]}]
    (source,) = content["datasource"]["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://127.0.0.1:9090")
    (provider,) = content["dashboards"]["providers"]
    folder, _, inside = services["grafana"]["volumes"][0].removesuffix(":ro").partition(":")
    assert provider["options"]["path"] == inside
    assert [path.name for path in (file.parent / folder).glob("*.json")] == ["persona.json"]
