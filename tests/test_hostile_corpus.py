"""A small part of the hostile corpus (`python -m tests.hostile --n 5000` runs all of it)."""

from pathlib import Path

import pytest

from curation.errors import ConfigError
from curation.pipeline_file import load_pipeline
from tests.hostile.corpus import MEMORY_MIB, run_corpus


def test_files_that_break_readers_are_decided_and_harm_no_neighbour(tmp_path: Path) -> None:
    found = run_corpus(tmp_path, 90, 1)
    assert found["errors"] == []
    assert (found["crashes"], found["lost_neighbours"], found["undecided"]) == (0, 0, 0)
    assert found["files"] > 90
    assert found["peak_mib"] < MEMORY_MIB


def test_settings_that_unfold_without_end_are_one_line(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    bomb = tmp_path / "p.yaml"
    bomb.write_text("\n".join([*lines, "pipelines: {drawn: {description: *a11}}"]))
    with pytest.raises(ConfigError) as raised:
        load_pipeline(str(bomb), "drawn", [])
    assert len(str(raised.value)) < 2000
