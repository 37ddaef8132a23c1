"""`make quick`: tests of changed packages, the nearest first; heavy engines and what has no time are told."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn_pipeline import ROOT, environment
from tests.house.quick import files_near


@pytest.mark.parametrize(
    ("changed", "first", "also"),
    [
        ("curation/photos/lamp.py", "curation/photos/test_lamp_and_shade.py", "curation/photos/"),
        ("shards/tools/lamp.py", "shards/tools/test_lamp.py", "shards/tools/"),
        ("training/lamp.py", "training/test_lamp.py", "training/"),
        ("tests/training/test_lamp.py", "training/test_lamp.py", ""),
    ],
)
def test_tests_of_a_changed_file_come_first_and_its_package_follows(
    changed: str, first: str, also: str, tmp_path: Path
) -> None:
    for name in (
        changed,
        f"tests/{first}",
        "tests/elsewhere/test_other.py",
        f"tests/{also or 'x/'}test_zz.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = files_near([changed], tmp_path)
    assert found[0] == f"tests/{first}"
    assert (f"tests/{also}test_zz.py" in found) is bool(also)
    assert "tests/elsewhere/test_other.py" not in found


def test_pages_have_no_tests_that_are_quick() -> None:
    assert files_near(["README.md", "docs/pipelines.md"], ROOT) == ["tests/house/test_import_direction.py"]


def test_what_is_left_out_is_told_with_its_reason(tmp_path: Path) -> None:
    program = (
        "import pytest; from tests.house.quick import WithinBudget; "
        "files = ['tests/house/test_quick.py', 'tests/house/test_processors.py']; "
        "plugin = WithinBudget(files, 0.0); "
        "pytest.main(['-p', 'no:cacheprovider', *files], plugins=[plugin]); print(dict(plugin.left_out))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1]
    assert "tests/house/test_quick.py: no time left" in last
    assert "tests/house/test_processors.py: a heavy engine" in last


def test_what_make_starts_compiles_a_module_once_and_not_in_each_process() -> None:
    told = subprocess.run(
        ["make", "--silent", "--eval", "told: ; @printenv PYTHONDONTWRITEBYTECODE || echo unset", "told"],
        cwd=ROOT,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "unset\n"
