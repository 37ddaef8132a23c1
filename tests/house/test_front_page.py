"""README.md is read in two screens, and `python -m tests.house` says how large the house is."""

import json
import re

import pytest

from tests.drawn_pipeline import ROOT
from tests.house.__main__ import main


def test_the_front_page_has_at_most_120_lines_and_ends_in_six_links() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    last = text.rpartition("\n## ")[2]
    assert len(re.findall(r"\]\(docs/\w+", last)) == 6


def test_the_figures_of_the_house_end_in_a_line_of_json_and_name_no_circle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tests.house"])
    assert main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["circles"] == 0
    assert found["product_lines"] > found["product_files"] > 100
    assert len(found["longest_chain"]) > 3
