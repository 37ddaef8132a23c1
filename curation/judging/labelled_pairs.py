"""Pairs that people labelled, or that a truth tells: the file of labels, and what is drawn to be labelled."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from curation.errors import ConfigError
from curation.storage import ALONE, read_bytes, read_table, write_bytes

YES, NO, UNKNOWN = ("1", "true", "yes", "same"), ("0", "false", "no", "different"), ("", "unknown")


@dataclass(frozen=True)
class LabelledPair:
    """a, b: person_ids, or file names of photos with one person; same: None where people could not tell."""

    a: str
    b: str
    same: bool | None


def read_labels(file: str) -> pa.Table:
    """A CSV or Parquet file of labelled pairs, of a CSV as texts. Raises OSError, ArrowException."""
    if file.endswith(".parquet"):
        return read_table(file)
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(("a", "b", "same"), pa.string()))
    data = io.BytesIO(read_bytes(file))
    return pa.csv.read_csv(data, pa.csv.ReadOptions(**ALONE), convert_options=as_text)


def read_pairs(file: str) -> list[LabelledPair]:
    """A CSV or Parquet file with columns a, b, same. Raises ConfigError that names file and line."""
    try:
        table = read_labels(file)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"--pairs {file}: {str(error).splitlines()[0]}") from None
    missing = {"a", "b", "same"} - set(table.column_names)
    if missing:
        raise ConfigError(f"--pairs {file}: has no column {', '.join(sorted(missing))}")
    pairs = []
    for number, row in enumerate(table.select(["a", "b", "same"]).to_pylist(), 2):
        word = str(row["same"]).strip().lower()
        if word not in (*YES, *NO, *UNKNOWN):
            raise ConfigError(f"--pairs {file}:{number}: same is {row['same']!r}, must be 1, 0 or unknown")
        pairs.append(LabelledPair(str(row["a"]), str(row["b"]), None if word in UNKNOWN else word in YES))
    return pairs


def pairs_of_truth(
    run: str, truth_folder: str, people: dict[str, dict[str, Any]], limit: int, seed: int = 0
) -> list[LabelledPair]:
    """At most `limit` pairs of people of one identity of the run, labelled by a truth; drawn by `seed`.

    people  {person_id: a row with `identity`}. A photo and its copy are no pair. Two people whom the run took
    for one are left out: no judge of clothes can know them.
    """
    from curation.evaluation.answers import read_looked_at, who_is_shown
    from curation.evaluation.groups import same_outfit
    from curation.evaluation.truth import read_truth

    truth = read_truth(truth_folder)
    true = who_is_shown(read_looked_at(run, truth))
    by_identity: dict[str, list[str]] = {}
    for name in sorted(people):
        by_identity.setdefault(people[name]["identity"], []).append(name)
    pairs = []
    for names in by_identity.values():
        for a, b in combinations(names, 2):
            one, two = true.get(a), true.get(b)
            if one and two and truth.original(one["photo_id"]) == truth.original(two["photo_id"]):
                continue
            if one and two and one["identity"] == two["identity"]:
                pairs.append(LabelledPair(a, b, same_outfit(one, two)))
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:limit]
    return [pairs[place] for place in sorted(drawn.tolist())]


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
