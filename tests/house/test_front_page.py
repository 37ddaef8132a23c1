"""README.md is read in two screens, READMEs name what exists; `python -m tests.house` measures the house."""

import json
import re
import subprocess

import pytest

from tests.drawn_pipeline import ROOT
from tests.house.__main__ import main


def test_the_front_page_has_at_most_120_lines_and_ends_in_six_links() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    last = text.rpartition("\n## ")[2]
    assert len(re.findall(r"\]\(docs/\w+", last)) == 6


def test_the_programs_that_a_readme_names_exist() -> None:
    """In backticks, by its name or by the end of its path."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = listed.stdout.splitlines()
    there = {f"/{file}"[slash.start() :] for file in files for slash in re.finditer("/", f"/{file}")}
    readmes = [ROOT / file for file in files if file.endswith("README.md")]
    named = {(each, name) for each in readmes for name in re.findall(r"`([\w./-]+\.py)`", each.read_text())}
    assert len(named) > 10
    assert {(str(each), name) for each, name in named if f"/{name}" not in there} == set()


def test_the_figures_of_the_house_end_in_a_line_of_json_and_name_no_circle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tests.house"])
    assert main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["circles"] == 0
    assert found["product_lines"] > found["product_files"] > 100
    assert len(found["longest_chain"]) > 3
