"""What a command loads before it answers: those that read JSON or Parquet load no phase and no model."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, environment, settings, write_config

# Each takes from a tenth of a second to several to import.
MODELS = {"cv2", "torch", "scipy", "ray", "transformers", "faiss", "onnxruntime", "pandas", "PIL"}
# What a command needs that reads settings, or Parquet.
SETTINGS, PARQUET, STORES = {"pydantic", "yaml"}, {"pyarrow", "numpy"}, {"fsspec"}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
LOADED = """
import os, sys
from persona import main
code = main(sys.argv[2:])
tasks = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
threads = sum(not name.startswith("jemalloc") for name in tasks)  # the allocator's runs nothing of ours
print(threads, *(name for name in sys.argv[1].split() if name in sys.modules))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and an index that it made."""
    folder = tmp_path_factory.mktemp("started")
    photos = write_folder(folder / "photos", collection(2, people=2, outfits=2, photos=3))
    pipeline = settings(photos)
    pipeline["identities"] = {**pipeline.get("identities", {}), "index": str(folder / "index")}
    config = write_config(folder / "pipelines.yaml", pipeline)
    for out in ("run", "again"):
        words = ["curate", "drawn", "--config", str(config), "--out", str(folder / out)]
        assert main([*words, "--engine", "inline", "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("status", "run"), set()),
        (("why", "run", "--failed"), PARQUET),
        (("why", "run", "{photo}"), PARQUET),
        (("runs", "."), SETTINGS),
        (("judge", "quality", "run"), {"yaml"} | PARQUET),
        (("identities", "list", "index"), PARQUET),
        (("models", "list", "drawn"), SETTINGS),
        (("shards", "stats", "run/shards"), PARQUET),
        (("shards", "verify", "run/shards"), PARQUET | STORES),
        (("shards", "credits", "run/shards"), PARQUET),
        (("shards", "diff", "run/shards", "again/shards"), PARQUET),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_command_that_reads_a_run_loads_no_model_and_leaves_no_thread_at_its_end(
    words: tuple[str, ...], needed: set[str], place: Path
) -> None:
    """A thread of Arrow's that lets go of a Python buffer while the interpreter ends aborts the process."""
    photo = next((place / "photos").iterdir())
    given = [word.format(photo=photo.name) for word in words]
    watched = sorted(MODELS | SETTINGS | PARQUET | STORES)
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, " ".join(watched), *given],
        cwd=place,
        env={**environment(), "PYTHONPATH": str(ROOT), **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    threads, *loaded = ran.stdout.splitlines()[-1].split()
    assert set(loaded) == needed
    assert threads == "1"


def test_two_runs_are_compared_without_a_model_or_pandas(place: Path) -> None:
    command = [sys.executable, "-c", LOADED, " ".join(sorted(MODELS - {"PIL"})), "diff", "run", "again"]
    environ = {**environment(), "PYTHONPATH": str(ROOT), **ONE_THREAD}
    ran = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "1"


OPENED = """
import collections, sys
opened = collections.Counter()
def seen(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".parquet"):
        opened[str(arguments[0])] += 1
from curation.why import explain
sys.addaudithook(seen)
people = sum(len(photo["people"]) for photo in explain(sys.argv[1], sys.argv[2])["photos"])
print(people, sum(opened.values()), max(opened.values()))
"""


def test_why_reads_each_table_twice_at_most_however_many_people_it_tells_of(place: Path) -> None:
    def told(wanted: str) -> list[int]:
        command = [sys.executable, "-c", OPENED, str(place / "run"), wanted]
        environ = {**environment(), "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=True)
        return [int(number) for number in ran.stdout.split()]

    one = told(min((place / "photos").iterdir()).name)
    identity = pq.read_table(place / "run/packing/groups.parquet")["identity"][0].as_py()
    many = told(identity)
    assert one[0] == 1 < many[0]
    assert many[1] <= one[1] + 1  # an identity is looked up by name first
    assert many[2] <= 2
