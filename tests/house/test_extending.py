"""docs/extending.md: what it adds is added from its own code blocks, and works as it says."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.docs_blocks import blocks_of
from tests.drawn_people import BOX, collection, write_folder
from tests.drawn_pipeline import ROOT, counts_of, environment, photos_with_people, settings, write_config
from tests.drawn_report import overview_of

PAGE = ROOT / "docs" / "extending.md"
PARTS = ("curation", "edges", "shards", "tests")
BLURRED = 5
X, Y = slice(BOX[0], BOX[2]), slice(BOX[1], BOX[3])


def inserted(text: str, block: str) -> str:
    """The text with the lines marked + put beside those marked by a blank, which must be there once."""
    lines = block.splitlines()
    context = [line[1:] for line in lines if line.startswith(" ")]
    (known,) = context
    assert text.splitlines().count(known) == 1, f"{known!r} must be there once"
    return text.replace(known + "\n", "".join(line[1:] + "\n" for line in lines), 1)


@dataclass(frozen=True)
class Tree:
    """A copy of the product with the two filters of the page in it. `touched`: files added or changed."""

    root: Path
    touched: set[str]

    def persona(self, *words: str | Path) -> str:
        """Runs a command of the copy; returns what it prints."""
        return self.python("persona", *words)

    def python(self, module: str, *words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            cwd=self.root,
            env={**environment(), "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The page's section on filters, followed to the letter."""
    root = tmp_path_factory.mktemp("extended")
    for part in PARTS:
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "persona.py", root)
    touched = set()
    section = PAGE.read_text().split("## A filter\n")[1].split("\n## ")[0]
    for block in blocks_of(PAGE):
        if block.text not in section:
            continue
        name = block.text.split("\n", 1)[0]
        stage = re.match(r'"""Stage `(\w+)`:', name)
        if block.language == "python" and stage:
            touched.add(f"curation/people/{stage[1]}.py")
            (root / f"curation/people/{stage[1]}.py").write_text(block.text + "\n")
        elif block.language == "diff" and name != "pipelines.yaml":
            touched.add(name)
            file = root / name
            file.write_text(inserted(file.read_text(), block.text.split("\n", 1)[1]))
    return Tree(root, touched)


@dataclass(frozen=True)
class Filtered:
    """A run with the filter over 18 photos, `BLURRED` of them blurred."""

    run: Path
    config: Path
    summary: dict[str, Any]
    blurred: str


@pytest.fixture(scope="module")
def filtered(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Filtered:
    folder = tmp_path_factory.mktemp("filtered")
    drawn = collection(3, people=3, outfits=2, photos=3)
    photos = write_folder(folder / "photos", drawn)
    for photo in drawn[:BLURRED]:
        soft = Image.open(io.BytesIO(photo.jpeg)).filter(ImageFilter.GaussianBlur(6))
        soft.save(photos / photo.name, "JPEG", quality=95)
    pipeline = settings(photos)
    pipeline["people"]["sharpness"] = {"min_variance": 100}
    config = write_config(folder / "pipelines.yaml", pipeline)
    words = ("curate", "drawn", "--config", config, "--out", folder / "run", "--engine", "inline")
    said = tree.persona(*words, "--quiet", "--json", "--allow-empty")
    return Filtered(folder / "run", config, json.loads(said.splitlines()[-1]), drawn[0].name)


def test_a_filter_is_one_file_its_settings_and_a_line_in_the_list_of_its_phase(tree: Tree) -> None:
    assert tree.touched == {
        "curation/people/sharpness.py",
        "curation/people/brightness.py",
        "curation/settings/people.py",
        "curation/people/stages.py",
    }


def test_no_row_of_a_new_filter_is_lost_from_the_counts(tree: Tree, filtered: Filtered) -> None:
    counts = counts_of(filtered.summary)
    into, kept, rejected, failed = counts["sharpness"]
    assert (into, kept, rejected, failed) == (18, 18 - BLURRED, BLURRED, 0)
    assert into == counts["copies"][1]
    assert kept == counts["detect"][0]
    status = json.loads(tree.persona("status", filtered.run, "--json"))
    assert status["stages"] == filtered.summary["stages"]
    (entry,) = [stage for stage in status["stages"] if stage["stage"] == "sharpness"]
    assert entry["reasons"] == {"blurred": BLURRED}
    assert entry["unit"] == "photo"


def test_why_gives_the_number_and_the_threshold_of_a_new_filter(tree: Tree, filtered: Filtered) -> None:
    (photo,) = json.loads(tree.persona("why", filtered.run, filtered.blurred, "--json"))["photos"]
    last = photo["decisions"][-1]
    assert (last["stage"], last["verdict"], last["reason"]) == ("sharpness", "rejected", "blurred")
    assert last["score"] < last["threshold"] == 100


def test_a_new_filter_stands_in_its_place_in_status_card_and_report(tree: Tree, filtered: Filtered) -> None:
    tree.persona("report", filtered.run)
    card = json.loads((filtered.run / "shards" / "dataset.json").read_text())
    overview = overview_of(filtered.run / "report")
    for stages in (filtered.summary["stages"], card["funnel"], overview["stages"]):
        names = [entry["stage"] for entry in stages]
        assert names[names.index("sharpness") - 1 :][:3] == ["copies", "sharpness", "detect"]
    assert card["settings"]["people.sharpness.min_variance"] == 100


def test_a_report_knows_the_threshold_of_a_new_filter_and_sweeps_it(tree: Tree, filtered: Filtered) -> None:
    key = "people.sharpness.min_variance"
    tree.persona("report", filtered.run, "--sweep", f"{key}=0:100:100")
    overview = overview_of(filtered.run / "report")
    (scores,) = [score for score in overview["scores"] if score["stage"] == "sharpness"]
    assert scores["key"] == key
    assert (sum(scores["passed"]), sum(scores["failed"])) == (18 - BLURRED, BLURRED)
    (swept,) = overview["sweeps"]
    points = [(point["value"], point["kept"], point["unmeasured"]) for point in swept["points"]]
    assert points == [(0, 18 - BLURRED, BLURRED), (100, 18 - BLURRED, 0)]


def test_the_table_of_reasons_has_those_of_a_new_filter(tree: Tree) -> None:
    line = (
        "| `sharpness` | photo | `blurred` | sharpness of the photo: below `people.sharpness.min_variance` |"
    )
    assert line in tree.python("curation.funnel").splitlines()


def test_a_stage_is_run_by_itself_on_the_rows_of_a_run(tree: Tree, filtered: Filtered) -> None:
    (block,) = [block for block in blocks_of(PAGE) if "def reasons(folder)" in block.text]
    called = "import json, sys\n\nprint(json.dumps(reasons(sys.argv[1])))\n"
    (tree.root / "alone.py").write_text(f"{block.text}\n\n{called}")
    found = json.loads(tree.python("alone", filtered.run))
    assert sum(found.values()) == counts_of(filtered.summary)["appearance"][1]
    assert set(found) <= {"cropped", "too_small", "large_share", "low_score", "cropped_by_borders"}


def test_a_filter_of_people_rules_on_each_person_by_the_pixels_of_its_box(
    tree: Tree, filtered: Filtered, tmp_path: Path
) -> None:
    photos = photos_with_people(filtered.run)
    bright = {
        name: float(np.asarray(Image.open(filtered.config.parent / "photos" / name))[Y, X].mean())
        for name, photo in photos.items()
        if photo["people"]
    }
    ordered = sorted(bright.values())
    assert len(ordered) == 18 - BLURRED
    least = (ordered[3] + ordered[4]) / 2
    words = ("curate", "drawn", "--config", filtered.config, "--out", tmp_path / "run", "--engine", "inline")
    said = tree.persona(
        *words, "--quiet", "--json", "--allow-empty", "--set", f"people.brightness.min_mean={least}"
    )
    summary = json.loads(said.splitlines()[-1])
    into, kept, rejected, failed = counts_of(summary)["brightness"]
    assert (into, kept, rejected, failed) == (len(ordered), len(ordered) - 4, 4, 0)
    assert counts_of(summary)["full_body"][0] == kept
    ends = {
        name: person["decisions"][-1]
        for name, photo in photos_with_people(tmp_path / "run").items()
        for person in photo["people"]
    }
    assert {name for name, end in ends.items() if end["reason"] == "dark"} == {
        name for name, mean in bright.items() if mean < least
    }
    assert all(
        abs(end["score"] - bright[name]) < 0.01 for name, end in ends.items() if end["stage"] == "brightness"
    )
