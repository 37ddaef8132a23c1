"""What the extra `training` brings is enough to train, and brings nothing of curation."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.drawn_pairs import write_people

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("ray", "vllm", "ultralytics", "insightface", "onnxruntime")

# In a process in which the packages cannot be found: as where they are not installed.
TRAINS = f"""
import sys
sys.modules.update(dict.fromkeys({NOT_NEEDED}))
from persona import main
code = main(sys.argv[1:])
assert sys.modules["torch"].backends.cudnn.benchmark
sys.exit(code)
"""


def test_a_training_runs_where_the_packages_of_curation_are_not_installed(tmp_path: Path) -> None:
    shards = write_people(tmp_path / "shards")
    words = ["train", "visual_persona_demo", "--shards", str(shards), "--out", str(tmp_path / "out")]
    words += [
        "--set",
        "cudnn_benchmark=true",
        "--set",
        "loop.steps=2",
        "--set",
        "data.batch=2",
        "--set",
        "loop.pictures_every=null",
    ]
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, *words], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
    assert (tmp_path / "out/checkpoints/step-00000002/adapter.safetensors").is_file()


def test_what_the_extra_depends_on_at_any_depth_is_nothing_of_curation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left = [*project["dependencies"], *project["optional-dependencies"]["training"]]
    found: set[tuple[str, str]] = set()
    while left:
        wanted = Requirement(left.pop())
        for extra in ("", *wanted.extras):
            key = (re.sub(r"[-_.]+", "-", wanted.name).lower(), extra)
            if key in found:
                continue
            found.add(key)
            try:
                needs = importlib.metadata.requires(wanted.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # for another platform
            left += [
                need
                for need in needs
                if (marker := Requirement(need).marker) is None or marker.evaluate({"extra": extra})
            ]
    names = {name for name, _ in found}
    assert {"torch", "diffusers", "huggingface-hub"} <= names
    assert not names & {*NOT_NEEDED}
