"""Whom a report shows: some of every reason, all that were kept by group, and who lies between.

Between lie identities that may hold two people, and people that may have two identities. Both by the rule
that joins clusters: the mean cosine over all pairs of two sets of faces (average linkage). An identity is cut
in two along the first principal axis of its faces; the lower the mean cosine between the halves, the more it
looks like two people. Two identities with a mean cosine close below `identities.merge_cosine` look like one.
"""

import heapq
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curation.ledger import FAILED, KEPT
from curation.report.data_files import DataFiles, Pages
from curation.report.decisions import Short, Words, detail_of, reason_of, stage_of, verdict_of
from curation.report.scores import Subject
from curation.report.subjects import Group, Pair, PhotoRow
from curation.run_folder import Run
from curation.storage import read_table

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


_MOST_IDENTITIES = 20_000  # compared with one another: the time grows with the square
_BLOCK = 1024


@dataclass(frozen=True)
class Suspect:
    """Two sets of person_ids, the mean cosine between them, and of which kind the doubt is."""

    cosine: float
    a: list[str]
    b: list[str]
    kind: str = ""


@dataclass(frozen=True)
class _Identity:
    person_ids: list[str]
    mean: np.ndarray  # of unit vectors, so that products of means are mean cosines


def suspected_merges(run: str, excluded: Container[str], most: int) -> tuple[list[Suspect], list[Suspect]]:
    """(identities that look like two people, pairs of identities that look like one), most doubtful first.

    Both empty before the phase `outfits`; the second also above 20,000 identities.
    """
    means: list[_Identity] = []
    within: list[Suspect] = []
    for person_ids, faces in _identities(run, excluded):
        means.append(_Identity(person_ids, faces.mean(axis=0)))
        if len(person_ids) > 1:
            within.append(_halves(person_ids, faces))
    within.sort(key=lambda suspect: (suspect.cosine, suspect.a[0]))
    return within[:most], _near(means, most) if len(means) <= _MOST_IDENTITIES else []


def doubts_of_phase(run: str, excluded: Container[str], most: int) -> list[Suspect]:
    """What the phase `identities` wrote down as doubtful itself: one face of either side, the highest
    cosines first. Empty for runs that wrote down none."""
    found = []
    for path in Run(run).suspects.paths():
        for row in read_table(path).to_pylist():
            a, b = row["person_a"], row["person_b"]
            if a and b and a[:64] not in excluded and b[:64] not in excluded:
                found.append(Suspect(round(row["cosine"], 4), [a], [b], row["kind"]))
    found.sort(key=lambda suspect: (-suspect.cosine, suspect.a, suspect.b))
    return found[:most]


def _identities(run: str, excluded: Container[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """(person_ids, float32 [n, d] unit vectors) of each identity."""
    for table in Run(run).gathered.tables(["identity", "person_id", "face"]):
        found: dict[str, list[tuple[str, bytes]]] = {}
        for row in table.to_pylist():
            if row["person_id"][:64] not in excluded:
                found.setdefault(row["identity"], []).append((row["person_id"], row["face"]["embedding"]))
        for people in found.values():
            faces = np.stack([np.frombuffer(embedding, "<f4") for _, embedding in people])
            lengths = np.linalg.norm(faces, axis=1, keepdims=True)
            yield [person_id for person_id, _ in people], faces / np.maximum(lengths, 1e-9)


def _halves(person_ids: list[str], faces: np.ndarray) -> Suspect:
    """The cut along the first principal axis, and the mean cosine across it."""
    centred = faces - faces.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    along = centred @ axes[0]
    first = along >= 0 if 0 < (along >= 0).sum() < len(along) else along > along.min()
    if first.all() or not first.any():  # all faces are equal
        first = np.arange(len(along)) == 0
    a = [person_id for person_id, mine in zip(person_ids, first, strict=True) if mine]
    b = [person_id for person_id, mine in zip(person_ids, first, strict=True) if not mine]
    cosine = float(faces[first].mean(axis=0) @ faces[~first].mean(axis=0))
    # The sign of an axis is anybody's guess: the smaller half is the odd one.
    a, b = sorted((a, b), key=lambda half: (-len(half), half))
    return Suspect(round(cosine, 4), a, b)


def _near(means: list[_Identity], most: int) -> list[Suspect]:
    """The pairs of identities with the highest mean cosine that share no photo."""
    if len(means) < 2:
        return []
    matrix = np.stack([identity.mean for identity in means])
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(means), _BLOCK):
        cosines = matrix[start : start + _BLOCK] @ matrix.T
        rows = np.arange(start, start + len(cosines))[:, None]
        cosines[rows >= np.arange(len(means))[None, :]] = -2
        flat = np.argpartition(-cosines, min(4 * most, cosines.size - 1), axis=None)[: 4 * most]
        for i, j in zip(*np.unravel_index(flat, cosines.shape), strict=True):
            if cosines[i, j] > -2:
                found.append((round(float(cosines[i, j]), 4), start + int(i), int(j)))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    near = []
    for cosine, i, j in found:
        a, b = means[i].person_ids, means[j].person_ids
        # Two people on one photo are two people.
        if not {name[:64] for name in a} & {name[:64] for name in b}:
            near.append(Suspect(cosine, a, b))
        if len(near) == most:
            break
    return near


def merge_entries(suspects: list[Suspect], at: dict[str, Subject], each: int) -> list[dict[str, Any]]:
    """For the page: {kind, cosine, sizes, a, b}, at most `each` subjects of either side."""
    return [
        {
            "kind": suspect.kind,
            "cosine": suspect.cosine,
            "sizes": [len(suspect.a), len(suspect.b)],
            **{
                side: [list(at[person_id]) for person_id in people[:each] if person_id in at]
                for side, people in (("a", suspect.a), ("b", suspect.b))
            },
        }
        for suspect in suspects
    ]
