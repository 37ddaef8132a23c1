"""Which pairs people are asked to label, and the file in which their answers lie."""

import csv
import io
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from curation.errors import ConfigError
from curation.outfits.labelled_pairs import read_pairs
from curation.storage import write_bytes

LABELS = {"same": "1", "different": "0", "unknown": "unknown"}
Pair = tuple[str, str]


def draw_pairs(identities: dict[str, str], asked: Sequence[Pair], count: int, seed: int = 0) -> list[Pair]:
    """`count` pairs of one identity each, in a drawn order: half of what was asked, half of any.

    identities  {person_id: identity}
    asked       pairs that the run's judge has answered: a calibration needs those that it meets
    """
    by_identity: dict[str, list[str]] = {}
    for person_id in sorted(identities):
        by_identity.setdefault(identities[person_id], []).append(person_id)
    every = [pair for ids in by_identity.values() for pair in combinations(ids, 2)]
    known = set(every)
    met = sorted({(min(pair), max(pair)) for pair in asked} & known)
    random = np.random.default_rng(seed)
    chosen = [met[place] for place in random.permutation(len(met))[: count // 2].tolist()]
    rest = sorted(known - set(chosen))
    chosen += [rest[place] for place in random.permutation(len(rest))[: count - len(chosen)].tolist()]
    return [chosen[place] for place in random.permutation(len(chosen)).tolist()]


class LabelFile:
    """A CSV of a, b, same (1, 0 or unknown), whole after every label; goes on with what is in it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._labels: dict[Pair, str] = {}
        if self._path.is_dir():
            raise ConfigError(f"--out {path}: is a folder")
        if self._path.exists():
            words = {True: "1", False: "0", None: "unknown"}
            self._labels = {(p.a, p.b): words[p.same] for p in read_pairs(path)}

    def __len__(self) -> int:
        return len(self._labels)

    def has(self, pair: Pair) -> bool:
        """Whether the pair has a label."""
        return pair in self._labels or pair[::-1] in self._labels

    def put(self, pair: Pair, label: str) -> None:
        """Writes a label: same, different or unknown."""
        self._labels.pop(pair[::-1], None)
        self._labels[pair] = LABELS[label]
        self._write()

    def undo(self) -> Pair | None:
        """Takes the latest label back; returns its pair."""
        if not self._labels:
            return None
        pair, _ = self._labels.popitem()
        self._write()
        return pair

    def _write(self) -> None:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["a", "b", "same"])
        rows.writerows([*pair, word] for pair, word in self._labels.items())
        write_bytes(str(self._path), text.getvalue().encode())
