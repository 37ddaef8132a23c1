"""What is installed: pinned with hashes, of known licences, told on a page and in a bill of materials."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from requirements.licence import kind_of, licence_of
from requirements.licences import PAGE, page
from requirements.pinned import FOLDER, NotPinnedError, read_pinned
from requirements.sbom import bill
from tests.drawn_pipeline import ROOT, persona

PINNED = sorted(FOLDER.glob("*.txt"), key=lambda path: path.name)
FILES = [path for path in PINNED if path.name != "overrides.txt"]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_requirement_is_one_version_with_hashes_from_no_named_registry(file: Path) -> None:
    assert len(read_pinned(file)) == len({one.name for one in read_pinned(file)}) > 0
    assert "://" not in "".join(line.partition("#")[0] for line in file.read_text().splitlines())


@pytest.mark.parametrize(
    "line",
    ["numpy>=2 --hash=sha256:" + "0" * 64, "numpy==2.0", "--index-url https://a.example", "numpy @ file:x"],
)
def test_what_leaves_open_what_is_installed_is_refused_and_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(f"{line}\n")
    with pytest.raises(NotPinnedError, match=r"some\.txt: requirement 1 is not pinned"):
        read_pinned(tmp_path / "some.txt")


@pytest.fixture(scope="module")
def cpu_set() -> None:
    """Skips where another set is installed, whose licences are others."""
    if any(licence_of(one.name) is None for one in read_pinned(FOLDER / "cpu.txt")):
        pytest.skip("not the environment of requirements/cpu.txt")


@pytest.mark.usefixtures("cpu_set")
def test_the_page_of_licences_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make licences`"


@pytest.mark.usefixtures("cpu_set")
def test_every_licence_is_known_and_strong_copyleft_is_what_commercial_refuses() -> None:
    kinds: dict[str, set[str]] = {}
    for one in read_pinned(FOLDER / "cpu.txt"):
        kinds.setdefault(kind_of(licence_of(one.name) or ""), set()).add(one.name)
    assert "unknown" not in kinds
    assert kinds["strong copyleft"] == {"ultralytics", "ultralytics-platform", "ultralytics-thop"}
    assert all(name.startswith(("nvidia-", "cuda-", "intel-")) for name in kinds["proprietary"])


def test_our_code_is_under_the_apache_licence_word_for_word() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    # The text as most repositories have it: that of apache.org without the empty line before its title.
    assert hashlib.sha256(text).hexdigest() == (
        "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert bill()["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_agpl_code_is_imported_by_its_backends_and_the_training_of_the_demos_detector_alone() -> None:
    importing = {
        file.relative_to(ROOT).as_posix()
        for part in (
            "persona.py",
            "edges",
            "curation",
            "shards",
            "training",
            "demo",
            "benchmarks",
            "requirements",
        )
        for file in ([ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py"))
        if re.search(r"^\s*(?:import|from) ultralytics\b", file.read_text(), re.M)
    }
    assert importing == {"curation/people/ultralytics_backends.py", "demo/train/yolo.py"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with_it = {name for name, needed in project["optional-dependencies"].items() if "ultralytics" in needed}
    assert with_it == {"ultralytics"}


def test_of_alternatives_the_freest_licence_counts_and_of_conditions_the_strictest() -> None:
    assert kind_of("GPL-3.0-only OR MIT") == "permissive"
    assert kind_of("MPL-2.0 AND (Apache-2.0 OR AGPL-3.0-only)") == "weak copyleft"
    assert kind_of("Apache-2.0 WITH LLVM-exception AND MIT") == "permissive"
    assert kind_of("Something-1.0 AND MIT") == kind_of("MIT MIT") == kind_of("") == "unknown"


def test_a_bill_of_materials_is_a_function_of_the_requirements() -> None:
    found = bill()
    assert json.dumps(found) == json.dumps(bill())
    names = {component["name"]: component for component in found["components"]}
    assert names["ray"]["version"] == "2.60.0"
    assert len(names["ray"]["externalReferences"]) == len(
        next(one for one in read_pinned(FOLDER / "cpu.txt") if one.name == "ray").sha256
    )
    assert names["yolo11-pose"]["licenses"] == [{"license": {"name": "AGPL-3.0"}}]
    references = [component["bom-ref"] for component in found["components"]]
    assert len(references) == len(set(references))


def test_commercial_refuses_weights_in_one_line_before_they_are_looked_for(tmp_path: Path) -> None:
    done = persona(
        "curate", "real-photos", "--commercial", "--out", tmp_path / "run",
        "--set", "people.detect.by={backend: 'tests.drawn_models:DrawnDetector'}",
        "--set", "people.face.embed={backend: onnx, model: insight}",
        "--set", "models.cards.insight={file: x, source: y, licence: research, commercial: false}",
    )  # fmt: skip
    says = "persona: --commercial: people.face.embed.model: 'insight' is under research"
    assert (done.returncode, done.stderr.strip()) == (2, says)
    assert not (tmp_path / "run").exists()
