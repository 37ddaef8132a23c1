"""The card of an exported model, and a hub that it is sent to: a loopback one."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from persona import main
from tests.drawn_pairs import write_people
from tests.drawn_training import SETTINGS
from tests.loopback_web import Hub, running, tell_of_hub
from training.checkpoint import checkpoints_in
from training.evaluation.cases import weights_digest


class WritableHub(Hub):
    """With what huggingface_hub asks to make a repository and a commit; large files go by git-lfs."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.token = "hf_writes"

    def received(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, b""
        headers = {name.lower(): value for name, value in self.seen[-1][2].items()}
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, b""
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if repo in self.private:
                return _answer({"url": f"{self.url}/{repo}"}, 409)
            self.private[repo] = (
                asked["private"] if "private" in asked else asked.get("visibility") == "private"
            )
            self.refs[repo] = {}
            return _answer({"url": f"{self.url}/{repo}"})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return _answer({"files": [
                {"path": f["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if f["size"] >= 10_000 else "regular"}
                for f in files
            ]})  # fmt: skip
        if path == "/api/validate-yaml":  # of the card
            return _answer({"warnings": [], "errors": []})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            return _answer({"transfer": "basic", "objects": [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}} for one in wanted
            ]})  # fmt: skip
        lines = [json.loads(line) for line in body.splitlines()]
        found: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                found[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found[value["path"]] = self.objects[value["oid"]]
        repo = "/".join(path.split("/")[3:5])
        commit = self.publish(repo, "main", found)
        return _answer(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/{repo}/commit/{commit}"}
        )


def _answer(told: dict[str, Any], status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(told).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with running(WritableHub) as server:
        tell_of_hub(monkeypatch, server.url, tmp_path / "hub")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_writes")
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two datasets, of which one states its licences."""
    folder = tmp_path_factory.mktemp("card")
    for name in ("people", "others"):
        write_people(folder / name)
    about = json.loads((folder / "people/dataset.json").read_text())
    about["licences"] = {"CC-BY-4.0": 20, "CC0 | mine": 10}
    (folder / "people/dataset.json").write_text(json.dumps(about))
    config = {
        "recipe": "visual_persona",
        "method": SETTINGS["visual_persona"],
        "data": {"height_px": 64, "width_px": 64, "batch": 2, "validation_batches": 1},
        "loop": {"steps": 2, "precision": "fp32"},
        "compile": False,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    # Of a dataset that others made, the key may be missing.
    del about["licences"]
    (folder / "others/dataset.json").write_text(json.dumps(about))
    words = [
        "--shards",
        f"{folder / 'people'}=3",
        str(folder / "others"),
        "--validation",
        str(folder / "others"),
    ]
    assert main(["train", str(folder / "mine.yaml"), *words, "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def test_an_export_has_a_card_with_recipe_base_datasets_licences_settings_and_figures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"mean": 0.71, "low": 0.6, "high": 0.8, "people": 9, "pictures": 18, "unanswered": 0}
    (tmp_path / "evaluation").mkdir()
    last = checkpoints_in(run / "checkpoints")[-1]
    results = {"model": weights_digest(last), "scores": {"dino": measured, "face": {"unanswered": 18}}}
    (tmp_path / "evaluation/results.json").write_text(json.dumps(results))
    out = tmp_path / "weight.safetensors"
    words = ["export", str(run), "--out", str(out), "--evaluation", str(tmp_path / "evaluation")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["card"] == str(tmp_path / "README.md")
    card = (tmp_path / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["tags"] == ["persona", "visual_persona", "sdxl"]
    loss = json.loads((checkpoints_in(run / "checkpoints")[-1] / "checkpoint.json").read_text())[
        "validation_loss"
    ]
    for told in (
        "| recipe | visual_persona |", "| base | sdxl, with random weights at the start |", "| steps | 2 |",
        "| samples of one step | 2 |", f"| loss on held-out people | {loss:.4f} |",
        "| people | 3 | 12 |", "| others | 1 | 12 |", "| CC-BY-4.0 | 20 |", "| CC0 ∣ mine | 10 |",
        "| dino | 0.7100 (0.6000 to 0.8000) | 9 |", "moving averages of the weights",
        "Datasets that state none: others.",
    ):  # fmt: skip
        assert told in body, told
    settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert settings["method"]["dropout"]["region"] == 0.15
    assert settings["loop"]["steps"] == 2
    # Scores of other weights, or of nobody knows which, are none of this model.
    for other in (["--last"], []):
        if not other:
            del results["model"]
            (tmp_path / "evaluation/results.json").write_text(json.dumps(results))
        elsewhere = tmp_path / f"other-{len(other)}/weight.safetensors"
        elsewhere.parent.mkdir()
        assert main(["export", str(run), "--out", str(elsewhere), *words[4:], *other]) == 0
        assert "is of other weights, or does not state which" in capsys.readouterr().err
        assert "| dino |" not in (elsewhere.parent / "README.md").read_text()
    (tmp_path / "evaluation/results.json").write_text(json.dumps({"model": weights_digest(last), **results}))
    # The same again gives the same; what somebody else wrote there stays.
    assert main(words) == 0
    assert (tmp_path / "README.md").read_text() == card
    (tmp_path / "README.md").write_text("# my project\n")
    assert main(words) == 0
    assert (tmp_path / "README.md").read_text() == "# my project\n"
    assert (tmp_path / "weight.README.md").read_text() == card


def test_an_export_is_pushed_with_its_card_to_a_private_repository_and_again(
    run: Path, hub: WritableHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weight.safetensors"
    words = ["export", str(run), "--out", str(out), "--push", "makers/person"]
    for _ in range(2):  # a repository that is there gets one more commit
        assert main(words) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        commit = hub.refs["makers/person"]["main"]
        assert told["pushed"] == f"{hub.url}/makers/person/commit/{commit}"
        assert hub.private == {"makers/person": True}
        files = hub.commits[commit]
        assert files["weight.safetensors"] == out.read_bytes()
        assert hashlib.sha256(out.read_bytes()).hexdigest() in hub.objects, "large files go by git-lfs"
        assert files["README.md"].decode() == (tmp_path / "README.md").read_text()
    assert main([*words[:-1], "makers/open", "--public"]) == 0
    assert hub.private["makers/open"] is False


def test_a_push_that_cannot_be_is_one_line_before_anything_is_exported(
    run: Path,
    hub: WritableHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(repo: str = "makers/person", code: int = 2) -> str:
        out = tmp_path / "weight.safetensors"
        assert main(["export", str(run), "--out", str(out), "--push", repo]) == code
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "--push person: must be OWNER/NAME" in said("person")
    assert "--push a//b: " in said("a//b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: nothing is sent" in said()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    assert "no login: set HF_TOKEN" in said()
    assert not (tmp_path / "weight.safetensors").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert said(code=1).endswith("--push makers/person: HTTP 401: HF_TOKEN is not known there")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "--push makers/person: the hub is not reached" in said(code=1)
