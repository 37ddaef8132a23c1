"""deploy/Dockerfile: what goes into the image, and what it stands on."""

import os
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from requirements.pinned import FOLDER, read_pinned
from tests.drawn_pipeline import ROOT
from tests.house.import_graph import PARTS, product_files

IMAGE = (ROOT / "deploy/Dockerfile").read_text()
DIGEST = f"sha256:{'5e' * 32}"


def goes_in(path: str) -> bool:
    """By Dockerfile.dockerignore, as Docker reads it: the last line that fits path or folder counts."""
    above = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
    kept = True
    for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        names = [name.rpartition("/")[2] for name in above] if pattern.startswith("**/") else above
        pattern = pattern.removeprefix("**/")
        if any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for name in names):
            kept = line.startswith("!")
    return kept


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".gitignore", ".env", ".venv/bin/python", ".ci/run", "runs/first/run.yaml",
        "runs/first/photos/fragment-0.parquet", "photos/a.jpg", "weights/w.pt", "tests/conftest.py",
        "shared/design.md", "benchmarks/reading.py", "findings/README.md", "docs/plan.md", "notes.txt",
        "curation/__pycache__/stage.cpython-311.pyc", "training/wandb.key", "requirements/cpu.txt",
    ],
)  # fmt: skip
def test_what_is_no_part_of_the_product_stays_out_of_the_image(path: str) -> None:
    assert not goes_in(path)


def test_the_product_with_all_of_its_files_goes_into_the_image() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PARTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    needed = [*tracked.stdout.splitlines(), *product_files(), "pyproject.toml", "README.md", "LICENSE"]
    needed += ["pipelines.yaml", *re.findall(r"requirements/[\w.-]+\.txt", IMAGE)]
    needed += ["requirements/image-cpu.txt", "requirements/image-gpu.txt"]
    assert len(needed) > 500
    assert [path for path in needed if not goes_in(path)] == []


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_the_image_has_the_tested_versions_and_none_of_what_only_tests_need(engine: str) -> None:
    image = read_pinned(FOLDER / f"image-{engine}.txt")
    assert set(image) < set(read_pinned(FOLDER / f"{engine}.txt"))
    named = (FOLDER / "checks.in").read_text().splitlines()
    checks = {re.split(r"[\[=<>]", line.lower())[0] for line in named if line and not line.startswith("#")}
    assert {"pytest", "mypy", "moto"} <= checks
    # vLLM itself depends on it.
    assert checks & {one.name for one in image} == {"jsonschema"}


def test_the_base_is_named_by_a_digest_without_which_nothing_is_built() -> None:
    (base,) = re.findall(r"^FROM (.*)$", IMAGE, re.MULTILINE)
    if re.search(r"@sha256:[0-9a-f]{64}$", base) is None:
        assert base.endswith("@${BASE_DIGEST}")
        assert re.findall(r"^ARG BASE_DIGEST.*$", IMAGE, re.MULTILINE) == ["ARG BASE_DIGEST"]  # no default
    kept = ROOT / "deploy/base.digest"
    assert not kept.exists() or re.fullmatch(r"sha256:[0-9a-f]{64}\n", kept.read_text())


def build(place: Path, *words: str) -> tuple[int, str, list[str]]:
    """Exit code, stderr, and how docker was called, of build.sh in a copy of deploy/."""
    (place / "deploy").mkdir(exist_ok=True)
    for name in ("build.sh", "Dockerfile"):
        (place / "deploy" / name).write_bytes((ROOT / "deploy" / name).read_bytes())
    called = place / "called"
    (place / "docker").write_text(
        f'#!/bin/bash\necho "$*" >> {called}\n[ "$1" = buildx ] && cat {place}/registry\nexit 0\n'
    )
    (place / "docker").chmod(0o755)
    done = subprocess.run(
        ["bash", place / "deploy/build.sh", *words], capture_output=True, text=True,
        env={"PATH": f"{place}:{os.environ['PATH']}"},
    )  # fmt: skip
    return done.returncode, done.stderr, called.read_text().splitlines() if called.exists() else []


def test_the_digest_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text(f"{DIGEST}\n")
    code, _, called = build(tmp_path, "gpu", "r.example/persona:1")
    assert code == 0
    assert called[0].startswith("buildx imagetools inspect python:3.11-slim-bookworm ")
    assert f"--build-arg ENGINE=gpu --build-arg BASE_DIGEST={DIGEST} -t r.example/persona:1 ." in called[1]
    (tmp_path / "registry").unlink()
    code, _, called = build(tmp_path, "cpu", "r.example/persona:2")
    assert (code, len(called)) == (0, 3)
    assert f"BASE_DIGEST={DIGEST}" in called[2]


def test_what_is_no_digest_is_one_line_and_nothing_is_built(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("3.11-slim-bookworm\n")
    code, says, called = build(tmp_path, "gpu", "r.example/persona:1")
    assert code == 1
    assert says.splitlines()[-1] == "deploy/base.digest: no digest: 3.11-slim-bookworm"
    assert len(called) == 1
    assert build(tmp_path, "tpu", "r.example/persona:1")[0] == 2


def test_the_image_s_packages_are_compiled_for_its_user_cannot_write_beside_them() -> None:
    assert "uv pip sync --system --no-cache --compile-bytecode " in IMAGE
    parts = re.search(r"python -m compileall -q (.*)$", IMAGE, re.MULTILINE)
    assert parts is not None
    assert set(parts[1].split()) == {"persona.py", *PARTS}
