"""A small part of the hostile corpus (`python -m tests.hostile --n 5000` runs all of it)."""

from pathlib import Path

import numpy as np
import pytest

from curation.errors import ConfigError
from curation.photos.decode import decode_rgb
from curation.pipeline_file import load_pipeline
from tests.hostile.corpus import MEMORY_MIB, run_corpus
from tests.hostile.pictures import base, pictures


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


def test_a_jpeg_of_countless_scans_is_refused_and_one_with_a_film_behind_it_is_not() -> None:
    scans = next(data for name, data in pictures(0) if name == "jpg-of-many-scans")
    with pytest.raises(ValueError, match="a JPEG of more than 100 scans"):
        decode_rgb(scans)
    photo = base("jpg", 0)
    film = np.random.default_rng(0).bytes(1 << 20) + b"\xff\xda\0\2" * 300
    assert (decode_rgb(photo + film) == decode_rgb(photo)).all()
