"""Layers inside curation/, no circle of files anywhere, and one place that names the files of a run."""

import ast
import re
from pathlib import Path

from tests.house.import_graph import ROOT, circles, edges
from tests.house.layers import imports_upwards, layer_of, without_layer


def test_files_of_curation_import_no_later_layer_and_no_later_phase() -> None:
    graph = edges()
    assert without_layer(graph) == []
    assert imports_upwards(graph) == []


def test_an_import_of_a_later_layer_or_phase_is_found() -> None:
    graph = {
        "curation/step.py": {"curation/photos/phase.py", "curation/engine.py"},
        "curation/people/phase.py": {"curation/photos/phase.py", "curation/outfits/phase.py"},
        "curation/status.py": {"curation/curate.py", "shards/format/index.py"},
        "shards/format/index.py": set(),
    }
    assert imports_upwards(graph) == [
        "curation/people/phase.py (phases) imports curation/outfits/phase.py (phases)",
        "curation/step.py (core) imports curation/photos/phase.py (phases)",
    ]
    assert layer_of("curation/new.py") is None
    assert without_layer({"curation/new.py": set()}) == ["curation/new.py"]


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles() == []


# What is called so in a run folder, and nowhere else in the product. Names that mean other things too
# (`source`, `report`, dataset.json of any dataset) are looked for as parts of a path of a run.
_NAMES = re.compile(
    r"""run\.yaml|status\.json|summary\.json|plan\.json|traceback\.txt|judge-calibration\.json|groups\.parquet
    |_opt_out\.json|_screened["'/]|_measured/|["']_(copies|assigned|suspects|minors|gathered|answers|search|done)\b
    |fragment-\{|bucket-\{|join\((job\.)?run,|/\s*["'](photos|people|identities|outfits|captions|packing)["']""",
    re.VERBOSE,
)
_HOME = {"curation/run_folder.py", "curation/run_tables.py", "curation/fragments.py"}


def named_run_files(root: Path) -> list[str]:
    """`file:line: text` of code that names a file of a run folder; words of docstrings and comments may."""
    found = []
    for file in sorted([*(root / "curation").rglob("*.py"), root / "persona.py"]):
        name = file.relative_to(root).as_posix()
        if name in _HOME or not file.exists():
            continue
        for number, line in enumerate(_code_of(file.read_text()), 1):
            if _NAMES.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def _code_of(text: str) -> list[str]:
    """The lines with docstrings and comments left empty."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return [line.partition("  # ")[0] if not line.lstrip().startswith("#") else "" for line in lines]


def test_only_the_run_names_the_files_of_a_run_folder(tmp_path: Path) -> None:
    assert named_run_files(ROOT) == []
    (tmp_path / "curation").mkdir()
    (tmp_path / "curation/new.py").write_text('path = join(run, "photos")  # x\nname = "groups.parquet"\n')
    assert len(named_run_files(tmp_path)) == 2
