"""A second base and another recipe, added from docs/extending.md alone: every command knows them."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.docs_blocks import Block, Command, blocks_of
from tests.drawn_pairs import write_people
from tests.drawn_pipeline import ROOT
from tests.drawn_training import CLIP, SDXL

PAGE = ROOT / "docs/extending.md"
# What a base and a recipe may touch: their own files, and a line in each catalogue.
ADDED = {
    "training/bases/small_flow.py",
    "training/recipes/colours.py",
    "training/configs/colours_tiny.yaml",
}
CATALOGUES = {"BASES": "training/bases/__init__.py", "CATALOGUE": "training/recipes/__init__.py"}


def page_blocks() -> list[Block]:
    """The blocks of the page's sections on bases and recipes, in order."""
    lines = PAGE.read_text().splitlines()
    first = lines.index("## A base")
    return [block for block in blocks_of(PAGE) if block.line > first]


def add_from_page(place: Path) -> None:
    """Writes the files that blocks name in their first line, and adds the one-line blocks to a catalogue."""
    catalogues = iter(CATALOGUES.items())
    for block in page_blocks():
        named = re.match(r'(?:"""|# )(training/\S+\.(?:py|yaml)): ', block.text)
        if named:
            (place / named[1]).write_text(block.text)
        elif block.language == "python":
            name, file = next(catalogues)
            text = (place / file).read_text()
            begin = re.search(rf"^{name} = \{{\n", text, re.MULTILINE)
            assert begin is not None
            (place / file).write_text(
                text[: begin.end()] + block.text.rstrip("\n") + "\n" + text[begin.end() :]
            )


def page_commands() -> list[Command]:
    return [c for block in page_blocks() if block.language == "bash" for c in block.commands()]


ASKED = ["generate", "--checkpoint", "tried", "--sample", "people:0000000000000003-a", "--prompt", "A man."]
REFUSED = {
    "size": [*ASKED, "--height", "64", "--width", "66", "--out", "x.png"],
    "scale": [*ASKED, "--height", "64", "--width", "64", "--out", "x.png", "--identity-scale", "0.5"],
}
METHODS = [["ip_adapter", {"small_flow": {}, "clip": CLIP}], ["colours", {"sdxl": SDXL}]]

# Everything that is asked of the project with the page's files, in one process: each imports for seconds.
PROGRAM = """
import contextlib, io, json, sys
import torch
from persona import main
from training.batch import random_batch
from training.recipes import recipe_of

commands, refused, methods = json.loads(sys.argv[1])
for words in commands:
    print(words, flush=True)
    code = main(words)
    if code:
        sys.exit(f"{words} ended with {code}")
told = {}
for name, words in refused.items():
    with contextlib.redirect_stderr(io.StringIO()) as lines:
        told[name] = [main(words), lines.getvalue()]
losses = []
for name, method in methods:
    recipe = recipe_of(name, method)
    module = recipe.build(torch.float32)
    batch = random_batch(recipe.fields(64, 64), 2)
    of_one = module(batch.fields, batch.streams)
    of_one.mean().backward()
    losses.append(of_one.tolist())
with open("answers.json", "w") as file:
    json.dump({"refused": told, "losses": losses}, file)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files added, where the page's commands have been run.

    `answers.json`: what REFUSED ended with and said, and the losses of METHODS.
    """
    place = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "training", place / "training", ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("edges", "shards", "curation", "persona.py", "pipelines.yaml"):
        (place / part).symlink_to(ROOT / part)
    add_from_page(place)
    write_people(place / "people")
    asked = [[command.words[1:] for command in page_commands()], REFUSED, METHODS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(asked)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def answers(place: Path, of: str) -> Any:
    return json.loads((place / "answers.json").read_text())[of]


def test_the_page_has_files_of_a_base_and_a_recipe_and_six_kinds_of_commands() -> None:
    called = {command.words[1] for command in page_commands()}
    assert called == {"shards", "train", "generate", "evaluate", "export"}
    assert any(command.words[2] == "precompute" for command in page_commands())


def test_only_files_are_added_and_a_line_in_each_catalogue(place: Path) -> None:
    added, changed = set(), {}
    for file in sorted((place / "training").rglob("*")):
        name = file.relative_to(place).as_posix()
        if not file.is_file() or "__pycache__" in name:
            continue
        if not (ROOT / name).exists():
            added.add(name)
        elif not filecmp.cmp(file, ROOT / name, shallow=False):
            before, after = (set(path.read_text().splitlines()) for path in (ROOT / name, file))
            changed[name] = (len(after - before), len(before - after))
    assert added == ADDED
    assert changed == dict.fromkeys(CATALOGUES.values(), (1, 0))


@pytest.mark.parametrize("run", ["tried", "tried-on-photos"])
def test_it_trains_on_latents_and_on_photos_and_draws_validation_pictures(run: str, place: Path) -> None:
    lines = [json.loads(line) for line in (place / run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert all(0 < loss < 100 for loss in losses)
    assert any("validation_loss" in line for line in lines)
    grids = sorted(file.name for file in (place / run / "pictures").iterdir())
    assert grids == [f"step-0000000{step}{kind}.jpg" for step in (2, 4) for kind in ("-averaged", "")]


def test_latents_are_those_of_its_own_vae(place: Path) -> None:
    stated = json.loads((place / "people-latents/dataset.json").read_text())["latents"]
    assert (stated["factor"], stated["channels"]) == (4, 6)
    assert (stated["scaling_factor"], stated["shift"]) == (0.8, 0.1)


def test_pictures_are_made_of_a_checkpoint_and_of_the_exported_file_alike(place: Path) -> None:
    one, two = (Image.open(place / "tried" / f"{name}.png") for name in ("one", "two"))
    assert one.size == two.size == (64, 64)
    assert one.tobytes() == two.tobytes()


def test_its_evaluation_has_pictures_and_a_page(place: Path) -> None:
    folder = place / "tried/evaluation"
    assert len(list((folder / "pictures").glob("*.png"))) == 4
    assert (folder / "index.html").stat().st_size > 1000


def test_what_it_cannot_do_is_refused_with_its_cause(place: Path) -> None:
    told = answers(place, "refused")
    assert [(code, lines.count("\n")) for code, lines in told.values()] == [(2, 1)] * len(REFUSED)
    assert "64 × 66 px: height and width must be multiples of 4" in told["size"][1]
    assert "identity_scale 0.5: the base small_flow knows none but 1" in told["scale"][1]


def test_any_recipe_stands_on_any_base(place: Path) -> None:
    losses = answers(place, "losses")
    assert len(losses) == len(METHODS)
    assert all(0 < loss < 100 for of_one in losses for loss in of_one)
