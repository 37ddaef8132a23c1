"""Imports run one way: curation → shards ← training, all of them → edges; nothing imports persona.py."""

import ast
import re
from pathlib import Path

import pytest

from tests.drawn_pipeline import ROOT

# What a part may not import.
FORBIDDEN = {
    "edges": {"curation", "shards", "training", "demo", "persona", "ray", "torch"},
    "curation": {"training", "demo", "persona"},
    "shards": {"curation", "training", "demo", "persona", "ray", "torch"},
    "training": {"curation", "demo", "persona", "ray"},
    "demo": {"persona"},
}
# The face for torch's trainers is a file of its own, which nothing else in its part imports.
ALLOWED = {("shards/reading/torch_dataset.py", "torch")}


def forbidden_imports(root: Path) -> list[str]:
    """`file:line imports name` for every import that the rule forbids."""
    found = []
    for part, names in FORBIDDEN.items():
        for file in sorted((root / part).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                modules: list[str] = []
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules = [node.module or ""]
                for module in modules:
                    name = module.split(".")[0]
                    if name in names and (file.relative_to(root).as_posix(), name) not in ALLOWED:
                        line = getattr(node, "lineno", 0)
                        found.append(f"{file.relative_to(root)}:{line} imports {module}")
    return found


def test_no_part_imports_what_it_must_not() -> None:
    assert (ROOT / "curation").is_dir()
    assert (ROOT / "shards").is_dir()
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("training/loop.py", "import ray\n"),
        ("training/data/read.py", "def f():\n    from curation.stage import Stage\n"),
        ("shards/format/index.py", "from curation import storage\n"),
        ("shards/read.py", "import torch.utils.data\n"),
        ("curation/curate.py", "import persona\n"),
    ],
)
def test_the_rule_finds_a_forbidden_import(file: str, line: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert len(forbidden_imports(tmp_path)) == 1


def test_stages_know_nothing_of_ray() -> None:
    importing = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "curation").rglob("*.py"))
        if re.search(r"^\s*(import|from) ray\b", file.read_text(), re.MULTILINE)
    ]
    assert importing == ["curation/engine.py", "curation/ray_address.py"]
