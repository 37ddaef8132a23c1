"""Pairs of photos of which it is known whether they show the same clothes: from a file, or from a truth."""

import io
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curation.errors import ConfigError
from curation.storage import read_bytes

YES, NO, UNKNOWN = ("1", "true", "yes", "same"), ("0", "false", "no", "different"), ("", "unknown")


@dataclass(frozen=True)
class LabelledPair:
    """a, b: person_ids, or file names of photos with one person; same: None where people could not tell."""

    a: str
    b: str
    same: bool | None


def read_pairs(file: str) -> list[LabelledPair]:
    """A CSV or Parquet file with columns a, b, same. Raises ConfigError that names file and line."""
    try:
        data = io.BytesIO(read_bytes(file))
        if file.endswith(".parquet"):
            table = pq.read_table(data)
        else:
            as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(("a", "b", "same"), pa.string()))
            table = pa.csv.read_csv(data, convert_options=as_text)
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
    from curation.evaluation.answers import read_looked_at
    from curation.evaluation.outfits import same_outfit
    from curation.evaluation.truth import read_truth
    from curation.evaluation.whose_face import who_is_shown

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
