"""Bytes and requests of a run: the sample's files grown with what they hold, and requests by what is opened.

Requests are counted as an object store would charge them: a file is put in one request, and a photo or a
fragment is read in one.
"""

from typing import Any

import numpy as np

from curation.people.stages import measuring_stages
from curation.plan.counts import Counts
from curation.plan.sample_run import SampleRun
from curation.run_folder import Run
from curation.settings.people import PeopleSettings
from curation.storage import filesystem

_ANSWERS = 256  # of a file


def bytes_of(folder: str) -> int:
    """Of all files below."""
    fs, path = filesystem(folder)
    return (
        sum(int(info["size"] or 0) for info in fs.find(path, detail=True).values()) if fs.exists(path) else 0
    )


def expect_bytes(run: str, sample: SampleRun, counts: Counts) -> dict[str, np.ndarray]:
    """{folder of the run: draws of its bytes}."""
    photos = counts.photos / sample.photos
    passed = counts.passed / max(int(sample.passed.sum()), 1)
    persons = counts.persons / max(float(sample.persons.sum()), 1.0)
    kept = counts.packed["kept"] / max(sum(sample.packed), 1)
    grows: dict[str, Any] = {
        "source": photos,
        "photos": photos,
        "people": passed,
        "identities": passed,
        "outfits": persons,
        "captions": kept,
        "packing": kept,
        "shards": kept,
    }
    folders, ones = Run(run).sizes(), np.ones(len(counts.passed))
    return {name: bytes_of(folders[name]) * growth * ones for name, growth in grows.items()}


def expect_requests(
    counts: Counts, people: PeopleSettings, fragments: int, later: int, shards: int
) -> dict[str, np.ndarray]:
    """{`gets`, `puts`}: draws. `fragments` of photos and people, `later` of identities, `shards`."""
    # What each of these measured is a file for each fragment; `read` is the one of the phase before.
    measuring = 1 + len(measuring_stages(people))
    asked, kept = counts.outfits["asked"], counts.packed["kept"]
    photos = counts.photos + counts.passed + 2 * asked + 2 * kept  # read, people; judge, captions and packing
    puts = fragments * (4 + measuring) + later * 3 + 2 * shards + (asked + kept) / _ANSWERS
    return {"gets": photos + 4 * fragments + 4 * later + 3 * shards, "puts": puts}


def to_price(
    total_bytes: np.ndarray, requests: dict[str, np.ndarray], prices: Any
) -> tuple[np.ndarray | None, list[str]]:
    """Of storing for a month and of the requests; None, and what the table lacks."""
    missing = [f"object_store.{name}" for name, value in prices.model_dump().items() if value is None]
    if missing:
        return None, missing
    stored = total_bytes / 2**30 * prices.gib_month
    asked = requests["puts"] * prices.thousand_puts + requests["gets"] * prices.thousand_gets
    return stored + asked / 1000, []
