"""Shards without metadata, curated once more: what photos stated stays, and old ids still name them."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.drawn_metadata import segment
from tests.drawn_people import Drawn, collection, write_folder
from tests.drawn_pipeline import curate, persona, rows_of, settings, write_config
from tests.drawn_rights import PACKETS

RESERVED = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PACKETS["prohibited, attribute"][0])


def records_in(shards: Path) -> dict[str, dict[str, Any]]:
    """{photo_id: the record} of all photos of a dataset of ours."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(shards.glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                data = archive.extractfile(member)
                if member.name.endswith(".json") and data is not None:
                    record = json.loads(data.read())
                    found |= {record["photo_id"]: record} if "photo_id" in record else {}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run over photos that reserve mining, packed all the same; one over its shards; ids of the photos."""
    folder = tmp_path_factory.mktemp("again")
    drawn = collection(5, people=3)
    told = [Drawn(p.name, p.person, p.outfit, p.jpeg[:2] + RESERVED + p.jpeg[2:]) for p in drawn]
    photos = write_folder(folder / "photos", told)
    first = settings(photos)
    first["photos"]["rights"] = {"mining": False}
    curate(write_config(folder / "first.yaml", first), folder / "runs" / "first")
    again = settings(folder / "runs" / "first" / "shards", kind="webdataset")
    again["photos"]["rights"] = {"mining": False}
    curate(write_config(folder / "again.yaml", again), folder / "runs" / "again")
    return folder / "runs", [hashlib.sha256(p.jpeg).hexdigest() for p in told]


def test_what_a_photo_stated_before_it_was_stripped_stays_in_its_record_when_it_is_packed_again(
    runs: tuple[Path, list[str]],
) -> None:
    for run in ("first", "again"):
        records = records_in(runs[0] / run / "shards")
        assert len(records) >= 3
        for record in records.values():
            assert record["stated_marks"] == {"mining": "plus:DataMining DMI-PROHIBITED", "reserved": True}


def test_a_photo_is_forgotten_by_the_id_of_its_bytes_in_a_run_over_stripped_shards(
    runs: tuple[Path, list[str]],
) -> None:
    listed = {row["photo_id"] for row in rows_of(runs[0] / "again" / "photos", ["photo_id"])}
    original = next(name for name in runs[1] if name in records_in(runs[0] / "first" / "shards"))
    assert original not in listed
    done = persona("forget", runs[0] / "again", "--photo", original, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert [photo["photo_id"] in listed for photo in json.loads(done.stdout)["photos"]] == [True]
