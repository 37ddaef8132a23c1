"""docs/reading.md: its training loop runs as it is printed, and its table has the keys that decoders give."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.reading.pairs import Pairs
from shards.reading.photo_batches import PairBatches, PhotoBatches
from shards.reading.torch_dataset import TorchDataset, TorchLoader
from tests.docs_blocks import blocks_of
from tests.drawn_pairs import write_people
from tests.drawn_pipeline import ROOT, environment

PAGE = ROOT / "docs/reading.md"
DECODERS: dict[str, Any] = {"PhotoBatches": PhotoBatches(48, 32), "PairBatches": PairBatches(48, 32)}
BATCH = 2


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("read") / "people")


def trained(people: Path, place: Path, steps: int) -> list[str]:
    """Runs the page's loop; the lines that it prints."""
    [block] = [block for block in blocks_of(PAGE) if block.text.startswith('"""train_small.py')]
    place.mkdir(exist_ok=True)
    (place / "train_small.py").write_text(block.text)
    words = [sys.executable, "train_small.py", str(people), str(steps)]
    done = subprocess.run(words, cwd=place, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_training_loop_of_the_page_reaches_a_loss_and_resumes_as_if_never_stopped(
    people: Path, tmp_path: Path
) -> None:
    whole = trained(people, tmp_path / "whole", 12)
    parts = trained(people, tmp_path / "parts", 5) + trained(people, tmp_path / "parts", 12)
    assert [line.split()[0] for line in whole] == [str(step) for step in range(1, 13)]
    assert whole == parts
    losses = [float(line.split()[1]) for line in whole]
    assert sum(losses[-4:]) < sum(losses[:4])


def table() -> dict[str, dict[str, tuple[str, str]]]:
    """{decoder: {key: (type, shape)}} of the page."""
    text = PAGE.read_text().partition("<!-- keys of decoders -->")[2].partition("<!-- end of keys -->")[0]
    found: dict[str, dict[str, tuple[str, str]]] = {}
    decoder = ""
    for row in text.strip().splitlines()[2:]:
        first, keys, kind, shape, _ = (cell.strip() for cell in row.strip("|").split("|"))
        decoder = first.strip("`") or decoder
        found.setdefault(decoder, {}).update(dict.fromkeys(re.findall(r"`(\w+)`", keys), (kind, shape)))
    return found


def shown(value: Any) -> tuple[str, str]:
    """Type and shape as the page has them."""
    if isinstance(value, list):
        return "list of B", ""
    names = {BATCH: "B", 48: "H", 32: "W"}
    return str(np.asarray(value).dtype), ", ".join(names.get(size, str(size)) for size in value.shape)


@pytest.mark.parametrize("name", DECODERS)
def test_the_table_of_the_page_has_each_key_of_each_decoder_with_its_type_and_shape(
    name: str, people: Path
) -> None:
    folder = DatasetFolder(str(people))
    source = Pairs(folder) if name == "PairBatches" else folder
    batch = next(iter(TorchLoader(TorchDataset(Loader(source, DECODERS[name], batch=BATCH)))))
    page = table()
    stated = page[name] | page["every one"] | page["TorchLoader"]
    assert batch.keys() == stated.keys()
    for key, value in batch.items():
        kind, shape = stated[key]
        if kind != "dict":
            assert shown(value) == (kind, "" if kind == "list of B" else shape), key
