"""Small datasets for the tests of the tools: groups of drawn photos with their records."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from shards.format.dataset_writer import DatasetWriter
from shards.format.sample import json_bytes
from tests.drawn_metadata import planted
from tests.drawn_pipeline import ROOT

Samples = dict[str, dict[str, bytes]]


def drawn_groups(identities: int, outfits: int = 1, photos: int = 2, seed: int = 0) -> Samples:
    """Samples by key, as curation writes them: the group, and of each photo picture, map and record."""
    random = np.random.default_rng(seed)
    found: Samples = {}
    for person in range(identities):
        for letter in "abcdefg"[:outfits]:
            key = f"{seed:04x}{person:012x}-{letter}"
            record = {"identity": key[:-2], "outfit": letter, "photos": photos, "schema": "1.0", "group": key}
            members = {"json": json_bytes(record)}
            for number in range(photos):
                members |= _photo(random, number, key)
            found[key] = members
    return found


def _photo(random: np.random.Generator, number: int, key: str) -> dict[str, bytes]:
    width, height = 16 + number, 24
    sink = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(sink, "JPEG")
    photo_id = hashlib.sha256(sink.getvalue()).hexdigest()
    record = {
        "photo_id": photo_id,
        "person_id": f"{photo_id}-0",
        "width": width,
        "height": height,
        "regions": ["head", "legs"],
        "caption": f"one of {key}",
        "licence": "CC0-1.0" if number % 2 else None,
    }
    stem = f"{number:03d}"
    labels = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8), mode="P").save(labels, "PNG")
    return {
        f"{stem}.jpg": sink.getvalue(),
        f"{stem}.regions.png": labels.getvalue(),
        f"{stem}.json": json_bytes(record),
    }


def with_metadata(samples: Samples, every: int = 1) -> Samples:
    """The same samples; the photos of every such one carry metadata, and their records name their bytes."""
    return {
        key: _planted(members) if number % every == 0 else members
        for number, (key, members) in enumerate(samples.items())
    }


def _planted(members: dict[str, bytes]) -> dict[str, bytes]:
    found = dict(members)
    for suffix in [name for name in members if name.endswith(".jpg")]:
        found[suffix] = planted(members[suffix], 1, icc=True)
        record, photo_id = f"{suffix[:3]}.json", hashlib.sha256(found[suffix]).hexdigest()
        stated = {**json.loads(members[record]), "photo_id": photo_id, "person_id": f"{photo_id}-0"}
        found[record] = json_bytes(stated)
    return found


def write_dataset(folder: Path, samples: Mapping[str, Mapping[str, bytes]], **limits: Any) -> Path:
    """A whole dataset, in shards of 8 unless said otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    with DatasetWriter(str(folder), **{"max_samples": 8, **limits}) as writer:
        for key, members in samples.items():
            writer.add(key, members)
        writer.close("drawn", {"pipeline": "drawn", "config": "c0ffee"})
    return folder


def shards_of(folder: Path) -> list[str]:
    """Paths of the shards that dataset.json names, in order."""
    about = json.loads((folder / "dataset.json").read_text())
    return [str(folder / shard["name"]) for shard in about["shards"]]


def read_by_webdataset(paths: Sequence[str]) -> Samples:
    """What another library reads: {key: {suffix: bytes}}."""
    if not paths:
        return {}
    read = webdataset.WebDataset(list(paths), shardshuffle=False, empty_check=False)
    return {
        sample["__key__"]: {name: data for name, data in sample.items() if not name.startswith("__")}
        for sample in read
    }


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Forks once for every file that a command opens for writing, renames or deletes in its folder, and ends
# the n-th child just before the n-th of them, as a kill would.
_KILLER = """
import os, shutil, sys
import pandas  # which pyarrow imports at its first list; here once, not in every child
original, killed = sys.argv[1], sys.argv[2]
{work}
def child(folder, left):
    def hook(event, args):
        nonlocal left
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa+")
        if (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")) and folder in str(args[0]):
            left -= 1
            if left < 0:
                os._exit(9)
    sys.addaudithook(hook)
    work(folder)
    os._exit(0)
for number in range(1000):
    folder = os.path.join(killed, str(number))
    shutil.copytree(original, folder)
    pid = os.fork()
    if pid == 0:
        try:
            child(folder, number)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 9:
        shutil.rmtree(folder)
        sys.exit(code)
sys.exit("work without end")
"""


def run_and_kill(where: Path, original: Path, work: str) -> list[Path]:
    """Copies of `original` in each of which `work(folder)` (source text) was killed at another point."""
    killed = where / "killed"
    killed.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = _KILLER.replace("{work}", work)
    command = [sys.executable, "-c", script, str(original), str(killed)]
    subprocess.run(command, env=environment, timeout=120, check=True)
    return sorted(killed.iterdir(), key=lambda path: int(path.name))
