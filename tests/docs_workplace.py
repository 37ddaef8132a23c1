"""The folder that a reader of docs/ stands in: photos, weights, a pipelines.yaml, a finished run.

Its pipelines have the names of the real ones and drawn models, so that a command of the docs runs as it is
written, in seconds.
"""

import shutil
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, settings
from tests.drawn_truth import rows_of, write_rows

PIPELINES = ("real-photos", "demo", "visual-persona-500k", "every-outfit")


def make_workplace(place: Path) -> None:
    """Fills the folder. Everything in it is a function of the code."""
    place.mkdir(parents=True)
    drawn, more = collection(3, people=5, outfits=1), collection(4, people=2, outfits=1)
    write_folder(place / "photos", drawn)
    write_folder(place / "more-photos", more)
    (place / "weights").mkdir()
    pictures = {"image": [photo.jpeg for photo in drawn], "key": [photo.name for photo in drawn]}
    pq.write_table(pa.table(pictures), place / "collection.parquet")
    write_rows(place / "truth", *rows_of(drawn, {}))
    pipeline = settings("photos", kind="auto")
    (place / "pipelines.yaml").write_text(yaml.safe_dump({"pipelines": dict.fromkeys(PIPELINES, pipeline)}))
    for name in ("demo", "deploy", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    with chdir(place):
        assert main(["curate", "real-photos", "--out", "runs/first", "--engine", "inline", "--quiet"]) == 0
    groups = pq.read_table(place / "runs/first/shards/index.parquet", columns=["key"])["key"].to_pylist()
    (place / "forget.txt").write_text(f"identity:{groups[0].partition('-')[0]}\n")
    (place / "opt-out.txt").write_text(f"sha256:{'0' * 64}\n")


def restore(place: Path, pristine: Path) -> None:
    """The folder as it was made, at the same place: run.yaml holds absolute paths."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pristine, place, symlinks=True)
