"""docs/extending.md: a face backend, added from blocks of the page, is one file and two places in YAML."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from curation.models import Model
from curation.people.face_onnx import OnnxFaceEmbedder
from curation.settings.people import OnnxEmbedderSettings
from tests.docs_blocks import Block, blocks_of
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, counts_of, curate, rows_of, settings, write_config

PAGE = ROOT / "docs" / "extending.md"
WEIGHTS = ROOT / "demo" / "weights" / "face.onnx"


def section_blocks() -> list[Block]:
    """The blocks of the page's section on face backends."""
    section = PAGE.read_text().split("### A face backend\n")[1].split("\n## ")[0]
    return [block for block in blocks_of(PAGE) if block.text in section]


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's module in it, where Python finds it."""
    (code,) = [block for block in section_blocks() if block.language == "python"]
    (tmp_path / "my_faces.py").write_text(code.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_faces", None)


def test_a_run_embeds_its_faces_by_a_backend_added_from_the_page(module_folder: Path) -> None:
    (lines,) = [block for block in section_blocks() if block.language == "yaml"]
    added: dict[str, Any] = yaml.safe_load(lines.text)
    assert set(added) == {"models", "people"}
    shutil.copy(WEIGHTS, module_folder / "my_faces.onnx")
    pipeline = settings(write_folder(module_folder / "photos", collection(5, people=3, outfits=1)))
    pipeline["models"] = {**added["models"], "path": str(module_folder)}
    pipeline["people"]["face"]["embed"] = added["people"]["face"]["embed"]
    config = write_config(module_folder / "pipelines.yaml", pipeline)
    summary = curate(config, module_folder / "run")
    into, kept, rejected, failed = counts_of(summary)["face"]
    assert (into, kept, rejected, failed) == (9, 9, 0, 0)
    assert len(rows_of(module_folder / "run" / "identities")) == 9


@pytest.mark.usefixtures("module_folder")
def test_the_backend_of_the_page_gives_the_vectors_of_the_one_that_is_built_in() -> None:
    from importlib import import_module

    models = {"my-faces": Model("my-faces", str(WEIGHTS), "0" * 64, "Apache-2.0")}
    built_in = OnnxEmbedderSettings(model="my-faces", flip=False)
    faces = np.random.default_rng(3).integers(0, 256, (4, 112, 112, 3), np.uint8)
    expected = OnnxFaceEmbedder(built_in, models).embed(faces)
    added = import_module("my_faces").OpencvEmbedder(SimpleNamespace(model="my-faces"), models)
    assert np.abs(added.embed(faces) - expected).max() < 1e-4
