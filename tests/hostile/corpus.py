"""Writes a hostile corpus, runs the photo phases over it, and counts what became of every file."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tests.drawn_people import collection
from tests.drawn_pipeline import ROOT, environment, rows_of, settings, write_config
from tests.hostile.containers import broken_tables, broken_tars, odd_names, write_tars
from tests.hostile.pictures import pictures

MEMORY_MIB = 1536  # of data that the process may have, whatever it meets
ITEM_S = 10.0  # a photo may cost so much at most, on an idle core
_DECIDED = ("kept", "rejected", "failed")


@dataclass
class Found:
    """Counts over all runs.

    files           that were made to break something
    crashes         runs that ended otherwise than whole
    lost_neighbours good photos that were not kept
    undecided       files without a decision, or one without a reason
    """

    files: int = 0
    crashes: int = 0
    lost_neighbours: int = 0
    undecided: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def run_corpus(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Draws `count` bad files below `folder` and curates them. Returns `Found` and times and memory."""
    found = Found()
    good = [photo.jpeg for photo in collection(31, people=max(2, min(count // 100, 50)), outfits=1)]
    bad = list(islice(pictures(seed), count))
    in_tars = count // 4
    collections = [
        _folder(folder / "folder", bad[in_tars:], good),
        _tars(folder / "tars", bad[:in_tars], good, seed),
        Collection(
            folder / "broken", "webdataset", *[broken_tars(folder / "broken" / "photos", good[0])] * 2
        ),
        Collection(folder / "tables", "parquet", broken_tables(folder / "tables" / "photos", good[0]), 1),
    ]
    began = time.monotonic()
    errors, peak_mib = _curate(collections)
    for one in collections:
        _count(one, errors[str(one.folder)], found)
    return {
        "files": found.files,
        "crashes": found.crashes,
        "lost_neighbours": found.lost_neighbours,
        "undecided": found.undecided,
        "verdicts": dict(sorted(found.verdicts.items())),
        "reasons": dict(sorted(found.reasons.items())),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": peak_mib,
        "memory_limit_mib": MEMORY_MIB,
        "errors": found.errors,
    }


@dataclass(frozen=True)
class Collection:
    """A folder with `photos`, what kind of source it is, and how many files in it are bad and good."""

    folder: Path
    kind: str
    bad: int
    good: int


def _folder(folder: Path, bad: list[tuple[str, bytes]], good: list[bytes]) -> Collection:
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number, ((what, data), name) in enumerate(zip(bad, odd_names(), strict=False)):
        # The number keeps names apart; every third has the ending of another format.
        place = f"{name}-{number}.{what.partition('-')[0] if number % 3 else 'jpg'}"
        known = place.endswith((".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"))
        (photos / (place if known else f"{place}.png")).write_bytes(data)
    for number, jpeg in enumerate(good):
        (photos / f"neighbour-{number}.jpg").write_bytes(jpeg)
    return Collection(folder, "folder", len(bad), len(good))


def _tars(folder: Path, bad: list[tuple[str, bytes]], good: list[bytes], seed: int) -> Collection:
    members = write_tars(folder / "photos", bad, good, seed)
    return Collection(folder, "webdataset", members, min(len(list((folder / "photos").iterdir())), len(good)))


def _curate(collections: list[Collection]) -> tuple[dict[str, str | None], int | None]:
    """{folder: why its run was not whole, or None}, and the peak in MiB of the process that runs them."""
    for one in collections:
        pipeline = settings(one.folder / "photos", kind=one.kind, max_failed_share=1.0, fragment_rows=256)
        write_config(one.folder / "p.yaml", pipeline)
    folders = [str(one.folder) for one in collections]
    words = [sys.executable, "-m", "tests.hostile.photo_phases", str(MEMORY_MIB), *folders]
    limit_s = 60 + ITEM_S * sum(one.bad + one.good for one in collections)
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, errors="replace", timeout=limit_s
    )
    errors: dict[str, str | None] = dict.fromkeys(
        folders, f"ended with {done.returncode}: {done.stderr[-500:]}"
    )
    peak_mib = None
    for said in map(json.loads, done.stdout.splitlines()):
        if isinstance(said, int):
            peak_mib = said
        else:
            errors[said[0]] = said[1]
    return errors, peak_mib


def _count(one: Collection, error: str | None, found: Found) -> None:
    """Adds what became of a collection."""
    found.files += one.bad
    if error is not None:
        found.crashes += 1
        found.errors.append(f"{one.folder.name}: {error}")
        found.undecided += one.bad
        found.lost_neighbours += one.good
        return
    kept = decided = 0
    for row in rows_of(one.folder / "run" / "photos", ["file_name", "verdict", "decisions"]):
        reason = row["decisions"][-1]["reason"] if row["decisions"] else "nobody decided"
        if row["file_name"].startswith("neighbour"):
            # The same good photo stands in every broken tar: one is kept, the others are its copies.
            kept += row["verdict"] == "kept" or reason == "exact_copy"
            continue
        decided += row["verdict"] in _DECIDED and (row["verdict"] == "kept") == (reason == "")
        found.verdicts[row["verdict"]] = found.verdicts.get(row["verdict"], 0) + 1
        found.reasons[reason or "none"] = found.reasons.get(reason or "none", 0) + 1
    found.lost_neighbours += one.good - kept
    found.undecided += max(one.bad - decided, 0)
