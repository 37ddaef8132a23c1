"""Weights from a model hub: one commit, the hub's cache, its logins and its refusals."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.drawn_cards import card, faults, pins, pull, rows, sha256, write_cards
from tests.drawn_pipeline import ROOT, files_of, persona
from tests.loopback_web import Hub, Served, running, tell_of_hub

WEIGHTS = random.Random(5).randbytes(2_000_000)
OTHER = random.Random(6).randbytes(2_000_000)
FOLDER = {
    "config.json": b"{}",
    "tokenizer.json": b"[" + b"1," * 2000 + b"1]",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": OTHER,
    "onnx/model.onnx": OTHER,
    "README.md": b"about",
    "LICENSE": b"MIT",
    ".gitattributes": b"*.safetensors lfs",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the repository makers/model, told of by HF_ENDPOINT; the hub's cache is empty."""
    with running(Hub) as server:
        tell_of_hub(monkeypatch, server.url, tmp_path / "hub")
        monkeypatch.setattr("curation.weights.web.PAUSES_S", (0.01, 0.01, 0.01))
        server.publish("makers/model", "main", FOLDER)
        yield server


def fetched(
    tmp_path: Path, source: str, file: str = "one.bin", *, alone: bool = False, **others: Any
) -> tuple[int, list[str], dict[str, bytes]]:
    """(exit code, faults, files) of a pull of one card into `weights`; `alone`: in a process of its own."""
    config = write_cards(tmp_path / "cards.yaml", one=card(source, file, **others))
    done = pull(config, tmp_path / "weights", alone=alone)
    return done.returncode, faults(done), files_of(tmp_path / "weights")


def test_a_file_is_pinned_to_the_commit_of_a_tag_and_fetched_from_it_when_the_tag_has_moved(
    hub: Hub, tmp_path: Path
) -> None:
    first = hub.publish("makers/model", "v1", {"deep/one.onnx": WEIGHTS})
    source = "hf://makers/model/deep/one.onnx"
    assert fetched(tmp_path, source, revision="v1") == (0, [], {"one.bin": WEIGHTS})
    assert pins(tmp_path / "cards.yaml") == {f"{source}@v1": {"commit": first, "sha256": sha256(WEIGHTS)}}
    hub.publish("makers/model", "v1", {"deep/one.onnx": OTHER})
    (tmp_path / "weights" / "one.bin").unlink()
    assert fetched(tmp_path, source, revision="v1") == (0, [], {"one.bin": WEIGHTS})


def test_of_a_repository_what_loads_is_fetched_and_no_pickle_and_the_folder_is_pinned(
    hub: Hub, tmp_path: Path
) -> None:
    code, said, files = fetched(tmp_path, "hf://makers/model", "model")
    assert (code, said) == (0, [])
    taken = {"config.json", "tokenizer.json", "model.safetensors", "LICENSE"}
    assert files == {f"model/{name}": FOLDER[name] for name in taken}
    (pin,) = pins(tmp_path / "cards.yaml").values()
    listed = persona(
        "models", "list", "drawn", "--config", tmp_path / "cards.yaml", "--json",
        "--set", f"models.path={tmp_path / 'weights'}",
    )  # fmt: skip
    assert '"state": "pinned"' in listed.stdout
    (tmp_path / "weights" / "model" / "config.json").write_bytes(b"{ }")
    assert pin["sha256"] in fetched(tmp_path, "hf://makers/model", "model")[1][0]


def test_an_empty_folder_is_no_weights_and_is_filled(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "weights" / "model").mkdir(parents=True)
    code, said, files = fetched(tmp_path, "hf://makers/model", "model", files=["LICENSE"])
    assert (code, said, files) == (0, [], {"model/LICENSE": b"MIT"})


def test_files_of_a_card_say_what_is_fetched_of_a_folder(hub: Hub, tmp_path: Path) -> None:
    wanted = ["pytorch_model.bin", "onnx/*"]
    code, _, files = fetched(tmp_path, "hf://makers/model", "model", files=wanted)
    assert (code, set(files)) == (0, {"model/pytorch_model.bin", "model/onnx/model.onnx"})
    code, (said,), _ = fetched(tmp_path, "hf://makers/model", "other", files=["*.gguf"])
    assert (code, "no file fits *.gguf" in said) == (1, True)


def test_a_repository_of_pickles_alone_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    hub.publish("makers/old", "main", {"pytorch_model.bin": OTHER, "config.json": b"{}"})
    code, (said,), files = fetched(tmp_path, "hf://makers/old", "old")
    assert (code, files) == (1, {})
    assert "no safetensors at its top, but pytorch_model.bin" in said


def test_a_file_of_the_hubs_cache_is_linked_and_not_copied(hub: Hub, tmp_path: Path) -> None:
    assert fetched(tmp_path, "hf://makers/model/model.safetensors")[0] == 0
    laid = (tmp_path / "weights" / "one.bin").stat()
    blob = tmp_path / "hub" / "hub" / "models--makers--model" / "blobs" / sha256(WEIGHTS)
    assert (laid.st_ino, laid.st_nlink) == (blob.stat().st_ino, 2)


def test_what_another_program_damaged_in_the_cache_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    assert fetched(tmp_path, "hf://makers/model", "model")[0] == 0
    blob = tmp_path / "hub" / "hub" / "models--makers--model" / "blobs" / sha256(WEIGHTS)
    (tmp_path / "weights" / "model" / "model.safetensors").unlink()
    os.rename(tmp_path / "weights" / "model", tmp_path / "away")
    blob.write_bytes(WEIGHTS[:-1] + b"?")
    assert fetched(tmp_path, "hf://makers/model", "model")[0] == 0
    assert (tmp_path / "weights" / "model" / "model.safetensors").read_bytes() == WEIGHTS


def test_without_a_stated_hash_a_damaged_cache_is_asked_of_the_hub_and_alone_proves_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish("makers/model", "main", FOLDER)
    source = "hf://makers/model/model.safetensors"
    assert fetched(tmp_path, source, revision=commit)[0] == 0
    (tmp_path / "weights" / "one.bin").unlink()
    (tmp_path / "models.lock").unlink()
    blob = tmp_path / "hub" / "hub" / "models--makers--model" / "blobs" / sha256(WEIGHTS)
    blob.write_bytes(b"DAMAGED")
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, (said,), files = fetched(tmp_path, source, revision=commit)
    assert (code, files, "no sha256 stated" in said) == (1, {}, True)
    assert fetched(tmp_path, source, revision=commit) == (0, [], {"one.bin": WEIGHTS})


def test_a_token_opens_a_gated_repository_and_is_not_sent_to_another_host(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.tokens["makers/model"] = "hf_secret"
    code, (said,), _ = fetched(tmp_path, "hf://makers/model/model.safetensors")
    assert (code, "is gated: accept its terms on the page of makers/model, and set HF_TOKEN" in said) == (
        1,
        True,
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetched(tmp_path, "hf://makers/model/model.safetensors") == (0, [], {"one.bin": WEIGHTS})
    to_cdn = [headers for _, path, headers in hub.seen if path.startswith("/cdn/")]
    assert to_cdn
    assert not any("hf_secret" in str(headers) for headers in to_cdn)


@pytest.mark.parametrize(
    ("source", "others", "said"),
    [
        ("hf://makers/none", {}, "HTTP 401: no such repository, or HF_TOKEN may not read it"),
        ("hf://makers/model", {"revision": "v9"}, "has no revision v9"),
        ("hf://makers/model/none.bin", {}, "the repository has no none.bin at "),
        (
            "hf://makers/model/model.safetensors",
            {"sha256": "0" * 64},
            f"has the sha256 {sha256(WEIGHTS)}, not 0",
        ),
    ],
)
def test_what_a_hub_does_not_have_is_one_line(
    hub: Hub, tmp_path: Path, source: str, others: dict[str, Any], said: str
) -> None:
    code, lines, files = fetched(tmp_path, source, **others)
    assert (code, len(lines), files) == (1, 1, {})
    assert said in lines[0]


def test_what_answers_and_is_no_hub_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.serve(
        "/api/models/makers/model", b"<html>please log in</html>", headers={"Content-Type": "text/html"}
    )
    code, (said,), files = fetched(tmp_path, "hf://makers/model/model.safetensors")
    assert (code, files) == (1, {})
    assert "what answers is no hub; see HF_ENDPOINT and the proxy" in said


def test_a_hub_that_is_busy_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    about = "/api/models/makers/model"
    hub.faults[about] = Served(b"", refusals=[(503, {}), (429, {"Retry-After": "1"})])
    assert fetched(tmp_path, "hf://makers/model/model.safetensors") == (0, [], {"one.bin": WEIGHTS})
    assert len(hub.gets(about)) == 3


def test_offline_the_cache_is_all_there_is_and_nobody_is_asked(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, (said,), _ = fetched(tmp_path, "hf://makers/model", "model", alone=True)
    assert (code, "HF_HUB_OFFLINE is set, and the hub's cache does not hold it" in said) == (1, True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert fetched(tmp_path, "hf://makers/model", "model")[0] == 0
    before = files_of(tmp_path / "weights")
    os.rename(tmp_path / "weights", tmp_path / "away")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    assert fetched(tmp_path, "hf://makers/model", "model", alone=True) == (0, [], before)
    assert hub.seen == []


def test_no_network_is_one_line_for_each_card_and_what_is_there_is_used(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = card("hf://makers/model/model.safetensors", "one.bin")
    config = write_cards(tmp_path / "cards.yaml", one=one)
    assert pull(config, tmp_path / "weights").returncode == 0
    tell_of_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub")
    config = write_cards(tmp_path / "cards.yaml", one=one, two=card("hf://makers/model/LICENSE", "two"))
    done = pull(config, tmp_path / "weights")
    (said,) = faults(done)
    assert said.startswith("two: hf://makers/model/LICENSE: ")
    assert [row["state"] for row in rows(done).values()] == ["there", "failed"]


def test_the_pipeline_for_photos_of_ones_own_is_pulled_from_a_hub(hub: Hub, tmp_path: Path) -> None:
    """`persona models pull real-photos` of the real file, each card's source replaced by this hub's."""
    whole = yaml.safe_load((ROOT / "pipelines.yaml").read_text())
    cards = whole["pipelines"]["real-photos"]["models"]["cards"]
    data = {entry["file"]: random.Random(name).randbytes(5000) for name, entry in cards.items()}
    hub.publish("makers/photos", "main", data)
    for entry in cards.values():
        entry.pop("convert", None)
        entry |= {
            "source": f"hf://makers/photos/{entry['file']}",
            "sha256": sha256(data[entry["file"]]),
            "revision": "main",
        }
    (tmp_path / "pipelines.yaml").write_text(yaml.safe_dump(whole))
    words = ("--config", tmp_path / "pipelines.yaml", "--to", tmp_path / "weights")
    done = persona("models", "pull", "real-photos", *words)
    assert (done.returncode, files_of(tmp_path / "weights")) == (0, data)
