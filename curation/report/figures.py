"""Figures of a report: rates of the steps, and how what was kept is distributed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from curation.report.scores import Subject
from curation.report.subjects import Group
from curation.run_folder import PHASES, Run
from curation.settings import PipelineSettings


def rate_entries(run: str, pipeline: PipelineSettings) -> list[dict[str, Any]]:
    """For the page, per folder of a phase that has work.

    rows, fragments; worker_s: seconds of workers on them, over all starts of the run; cpu_s: of their
    process; rows_per_worker_s; cpu_share: cpu_s / worker_s, above 1 where a worker uses threads.
    wall_s and busy (share of the workers' time in which they had a fragment) are of the last start, None
    where it had nothing to do. stages: [{stage, rows, seconds}] of those that tell of themselves: seconds of
    workers, on rows that a stage measured, or ruled on where it measures nothing.
    """
    rates = (Run(run).summary or {}).get("rates", {})
    entries = []
    for phase, folders in PHASES.items():
        wanted = getattr(pipeline, phase).resources.workers
        for folder in folders:
            footers = Run(run).table(folder).about()
            if not footers:
                continue
            rows = sum(entry["rows"] for entry in footers)
            worker_s = sum(entry["seconds"] for entry in footers)
            cpu_s = sum(entry["cpu_seconds"] for entry in footers)
            last = rates.get(folder, {})
            workers = last.get("workers") or wanted  # a machine may have room for fewer
            whole = last.get("rows_this_time") == rows and last.get("seconds", 0) > 0
            wall_s = last.get("seconds") if last.get("rows_this_time") else None
            entries.append(
                {
                    "phase": phase,
                    "folder": folder,
                    "rows": rows,
                    "fragments": len(footers),
                    "workers": workers,
                    "worker_s": round(worker_s, 3),
                    "cpu_s": round(cpu_s, 3),
                    "rows_per_worker_s": round(rows / worker_s, 2) if worker_s else None,
                    "cpu_share": round(cpu_s / worker_s, 3) if worker_s else None,
                    "wall_s": wall_s,
                    "stages": _stages(footers),
                    "busy": round(min(worker_s / (wall_s * workers), 1.0), 3) if whole and wall_s else None,
                }
            )
    return entries


def _stages(footers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in footers:
        for stage, times in entry.get("stages", {}).items():
            whole = found.setdefault(stage, {"stage": stage, "rows": 0, "seconds": 0.0})
            whole["rows"] += times["rows"]
            whole["seconds"] += times["seconds"]
    return [{**whole, "seconds": round(whole["seconds"], 3)} for whole in found.values()]


PAPER_PHOTOS = {"2": 30, "3": 18, "4": 12, "5–9": 25, "10+": 15}
"""Per cent of people with so many photos; 580,000 photos of 100,000 people, 5.8 on average."""
PAPER_REGIONS = {"3": 57, "4": 29, "5": 14}
"""Per cent of photos on which so many of the five regions are visible."""
_SIDES_PX = (0, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096)


class KeptPeople:
    """Numbers of the people in packed groups, filled while rows go by: regions, sides of photo and box."""

    def __init__(self, kept: Iterable[str]) -> None:
        self._wanted = frozenset(kept)
        self.at: dict[str, Subject] = {}
        self.regions: Counter[int] = Counter()
        self.photo_px: list[int] = []
        self.person_px: list[int] = []

    def add(self, person_id: str, regions: int | None, photo_px: int, person_px: int) -> None:
        """One person; those that are in no group are not counted. Sides are the shorter of the photo
        and the longer of the box, px."""
        if person_id in self._wanted:
            if regions is not None:
                self.regions[regions] += 1
            self.photo_px.append(photo_px)
            self.person_px.append(person_px)


def distribution_entries(groups: Sequence[Group], kept: KeptPeople) -> list[dict[str, Any]]:
    """For the page: {title, unit, mean, bars}; a bar is [label, count, per cent of the paper or None]."""
    photos: Counter[str] = Counter()
    outfits: Counter[str] = Counter()
    for group in groups:
        identity = group.key.rsplit("-", 1)[0]
        photos[identity] += len(group.person_ids)
        outfits[identity] += 1
    return [
        _entry("Photos per person", "people", photos.values(), _by_photos, PAPER_PHOTOS),
        _entry("Outfits per person", "people", outfits.values(), str, {}),
        _entry("Regions visible", "photos", kept.regions.elements(), str, PAPER_REGIONS),
        _entry("Shorter side of the photo, px", "photos", kept.photo_px, _by_side, {}),
        _entry("Longer side of the person, px", "photos", kept.person_px, _by_side, {}),
    ]


def _entry(title: str, unit: str, values: Iterable[int], label: Any, paper: dict[str, int]) -> dict[str, Any]:
    found = sorted(values)
    counts = Counter(label(value) for value in found)
    labels = list(dict.fromkeys([*paper, *(label(value) for value in found)]))
    labels.sort(key=lambda text: int(text.removesuffix("+").split("–")[0].removeprefix("≥ ")))
    return {
        "title": title,
        "unit": unit,
        "count": len(found),
        "mean": round(float(np.mean(found)), 2) if found else None,
        "bars": [[text, counts[text], paper.get(text, 0 if paper else None)] for text in labels],
    }


def _by_photos(count: int) -> str:
    if count >= 10:
        return "10+"
    return "5–9" if count >= 5 else str(count)


def _by_side(side: int) -> str:
    place = int(np.searchsorted(_SIDES_PX, side, "right"))
    if place == len(_SIDES_PX):
        return f"{_SIDES_PX[-1]}+"
    return f"{_SIDES_PX[place - 1]}–{_SIDES_PX[place] - 1}"
