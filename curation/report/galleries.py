"""Whom a report shows: some of every reason, all that were kept by group, and who lies between."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.ledger import FAILED, KEPT
from curation.report.data_files import DataFiles, Pages
from curation.report.decisions import Short, Words, detail_of, reason_of, stage_of, verdict_of
from curation.report.scores import Subject
from curation.report.subjects import Group, Pair, PhotoRow

# Entries of a data file, not of what is shown at a time: few files are written and copied sooner.
GROUPS_PAGE = 120
PAIRS_PAGE = 480
_KEPT = (-1, -1)


@dataclass
class Ending:
    """Subjects that ended at one (stage, reason): all of them, and a fair sample."""

    verdict: str
    subjects: list[int] = field(default_factory=list)
    sample: list[tuple[str, int, int]] = field(default_factory=list)


class Endings:
    """Where every subject of a run ended. The sample is by photo_id, a hash: any order gives the same."""

    def __init__(self, words: Words, sample: int) -> None:
        self._words = words
        self._most = sample
        self._found: dict[tuple[int, int], Ending] = {}
        self._failures: dict[tuple[str, str, str], list[Any]] = {}

    def add(self, row: PhotoRow, place: int, decisions: Sequence[Short]) -> None:
        """Takes up one subject of a row."""
        last = decisions[-1]
        verdict = verdict_of(last)
        key = _KEPT if verdict == KEPT else (stage_of(last), reason_of(last))
        ending = self._found.setdefault(key, Ending(verdict))
        ending.subjects += (row.number, place)
        heapq.heappush(ending.sample, (_inverted(row.photo_id), -row.number, -place))
        if len(ending.sample) > self._most:
            heapq.heappop(ending.sample)
        if verdict == FAILED:
            words = self._words.all
            said = (words[key[0]], words[key[1]] if key[1] >= 0 else "", detail_of(last))
            entry = self._failures.setdefault(said, [0, [row.number, place]])
            entry[0] += 1

    def write(self, files: DataFiles, stages: Sequence[str]) -> list[dict[str, Any]]:
        """A file `ending-N` with all subjects of each; returns what the page shows of them.

        Kept first, then in the order of `stages`, the most frequent reason of a stage first.
        """
        place = {self._words.number(stage): i for i, stage in enumerate(stages)}

        def by_stage(key: tuple[int, int]) -> tuple[int, int, str]:
            reason = self._words.all[key[1]] if key[1] >= 0 else ""
            stage = -1 if key == _KEPT else place.get(key[0], len(place))
            return stage, -len(self._found[key].subjects), reason

        order = sorted(self._found, key=by_stage)
        entries = []
        for number, key in enumerate(order):
            ending = self._found[key]
            files.put(f"ending-{number}", ending.subjects)
            stage, reason = ("", "") if key == _KEPT else (self._words.all[key[0]], self._words.all[key[1]])
            entries.append(
                {
                    "file": f"ending-{number}",
                    "stage": stage,
                    "reason": reason,
                    "verdict": ending.verdict,
                    "count": len(ending.subjects) // 2,
                    "sample": [list(subject) for subject in self._sample(ending)],
                }
            )
        return entries

    def _sample(self, ending: Ending) -> Iterator[Subject]:
        for _, row, place in sorted(ending.sample, reverse=True):
            yield -row, -place

    def failures(self) -> list[dict[str, Any]]:
        """What went wrong, the most frequent first, with one subject each."""
        ordered = sorted(self._failures.items(), key=lambda item: (-item[1][0], item[0]))
        return [
            {"stage": stage, "reason": reason, "detail": detail, "count": count, "subject": subject}
            for (stage, reason, detail), (count, subject) in ordered[:50]
        ]


def _inverted(photo_id: str | None) -> str:
    """A string that sorts the other way round, since a heap gives up its least."""
    return (photo_id or "f" * 16)[:16].translate(_TURNED)


_TURNED = str.maketrans("0123456789abcdef", "fedcba9876543210")


def write_groups(files: DataFiles, groups: Sequence[Group], at: dict[str, Subject]) -> dict[str, Any]:
    """Files `groups-N` of {key, shard, people}; `at` says which row and person a person_id is."""
    pages = Pages(files, "groups", GROUPS_PAGE)
    for group in groups:
        people = [list(at[person_id]) for person_id in group.person_ids if person_id in at]
        if people:
            pages.add({"key": group.key, "shard": group.shard, "people": people})
    return pages.close()


def pairs_by_doubt(pairs: Sequence[Pair], cut: float | None) -> list[Pair]:
    """The nearest to the cut first."""

    def doubt(pair: Pair) -> tuple[float, str, str]:
        distance = 0.0 if pair.score is None or cut is None else abs(pair.score - cut)
        return distance, pair.a, pair.b

    return sorted(pairs, key=doubt)


def write_pairs(
    files: DataFiles, pairs: Sequence[Pair], at: dict[str, Subject], cut: float | None
) -> dict[str, Any]:
    """Files `pairs-N` of [row, person, row, person, same, score], the nearest to the cut first."""
    pages = Pages(files, "pairs", PAIRS_PAGE)
    said = {"same": 0, "different": 0, "unknown": 0}
    for pair in pairs_by_doubt(pairs, cut):
        if pair.a not in at or pair.b not in at:
            continue
        said["unknown" if pair.same is None else "same" if pair.same else "different"] += 1
        score = None if pair.score is None else round(pair.score, 5)
        pages.add([*at[pair.a], *at[pair.b], pair.same, score])
    return {**pages.close(), "said": said, "cut": cut}
