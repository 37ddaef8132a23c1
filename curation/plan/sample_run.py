"""What the finished run of a sample has seen: every photo's way through the stages, every person's photos."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.identities.phase import Identity
from curation.judging.quality import questions_a_region_pair, questions_asked
from curation.ledger import KEPT
from curation.photos.copies import Copies
from curation.photos.read import Read
from curation.photos.screen import Screen
from curation.plan.outfit_yield import JudgedPerson
from curation.run_folder import Run

BEFORE_COPIES = (Read.name, Screen.name, Copies.name)
VERDICTS = ("kept", "rejected", "failed")


@dataclass(frozen=True)
class SampleRun:
    """`ways`: {(stage, verdict): decisions of it, one number a photo}, as arrays over all photos drawn.

    `passed`: which photos are no copies, `families`: the sizes of sets of copies. `people`: who reached the
    outfits, by identity. `packed`: the sizes of the groups that went into shards.
    """

    photos: int
    passed: np.ndarray
    ways: dict[tuple[str, str], np.ndarray]
    families: np.ndarray
    people: list[JudgedPerson]
    packed: list[int]

    @property
    def persons(self) -> np.ndarray:
        """How many people of each photo reached the outfits."""
        found = self.ways.get((Identity.name, KEPT))
        return np.zeros(self.photos) if found is None else found


def read_sample_run(run: str, min_photos: int) -> SampleRun:
    """Reads the barriers of a finished run; groups of fewer than `min_photos` were not packed."""
    place: dict[str, int] = {}
    ways: dict[tuple[str, str], Counter[int]] = {}
    screened: list[bool] = []
    originals: Counter[str] = Counter()
    columns = ["source_key", "photo_id", "copy_of", "decisions"]
    for row, people in Run(run).photos_with_people(columns, ["decisions"]):
        at = place[row["source_key"]] = len(place)
        decisions = [*row["decisions"], *(decision for person in people for decision in person["decisions"])]
        for decision in decisions:
            ways.setdefault((decision["stage"], decision["verdict"]), Counter())[at] += 1
        last = {decision["stage"]: decision["verdict"] for decision in row["decisions"]}
        screened.append(last.get(Copies.name) == KEPT)
        if Copies.name in last:
            originals[row["copy_of"] or row["photo_id"]] += 1
    for row in Run(run).identities.rows(["source_key", "decisions"]):
        for decision in row["decisions"]:
            if decision["stage"] == Identity.name:
                way = (Identity.name, decision["verdict"])
                ways.setdefault(way, Counter())[place[row["source_key"]]] += 1
    by_regions = questions_a_region_pair(Run(run))
    outfits = Run(run).outfits.rows(["person_ids", "outfits", "pairs"])
    return SampleRun(
        photos=len(place),
        passed=np.array(screened, bool),
        ways={key: _spread(counted, len(place)) for key, counted in ways.items()},
        families=np.array(list(originals.values()), int),
        people=[_judged(row, by_regions) for row in outfits],
        packed=[size for size in _selected(run).values() if size >= min_photos],
    )


def _judged(row: dict[str, Any], by_regions: int) -> JudgedPerson:
    letters = Counter(letter for letter in row["outfits"] if letter is not None)
    asked = questions_asked(row["pairs"], by_regions)
    return JudgedPerson(len(row["person_ids"]), asked, tuple(letters.values()))


def _selected(run: str) -> Counter[str]:
    """{group: photos of it that were selected and have a caption}."""
    rows = Run(run).captions.rows(["group", "verdict"])
    return Counter(row["group"] for row in rows if row["verdict"] == KEPT)


def _spread(counted: Counter[int], photos: int) -> np.ndarray:
    values = np.zeros(photos)
    values[list(counted)] = list(counted.values())
    return values
