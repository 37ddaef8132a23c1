"""What a dataset holds, counted from its index alone; one batch of rows is in memory at a time."""

import argparse
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from shards.format.contents import REGION_NAMES
from shards.format.members import identity_of
from shards.tools.commands import folder_of, say
from shards.tools.dataset_rows import DatasetRows, numbers_of

_ROWS = 65_536
_ASPECT_STEPS = np.array([0.5, 0.667, 0.8, 1.0, 1.25, 1.5, 2.0])  # width / height
_MOST_WORDS = 2**15


def stats(folder: str) -> dict[str, Any]:
    """Counts and distributions of a dataset. Raises DatasetError where it cannot be opened.

    `aspect` counts photos by width / height, in steps named by their upper end; `caption_words` gives
    mean and quantiles over photos that have a caption; `bytes` has those of shards and of contents.
    """
    rows = DatasetRows(folder)
    about, counted = rows.about, _Counted()
    for batch in rows.table.to_batches(max_chunksize=_ROWS):
        counted.add(batch)
    rows.close()
    return {
        "folder": folder,
        "revision": about.get("revision", 0),
        "shards": len(about["shards"]),
        "groups": counted.groups,
        "photos": sum(size * number for size, number in counted.photos_per_group.items()),
        "identities": counted.identities(),
        "photos_per_group": {
            str(size): number for size, number in sorted(counted.photos_per_group.items()) if number
        },
        "regions": dict(zip(REGION_NAMES, counted.regions.tolist(), strict=True)),
        "aspect": counted.aspects(),
        "caption_words": counted.words(),
        "members": dict(sorted(counted.members.items())),
        "bytes": {"shards": about["bytes"], "contents": dict(sorted(counted.content_bytes.items()))},
        "licences": about.get("licences", {}),
        "latents": about.get("latents"),
    }


class _Counted:
    """Counts that grow batch by batch. Identities are kept as 64-bit hashes."""

    def __init__(self) -> None:
        self.groups = 0
        self.photos_per_group: Counter[int] = Counter()
        self.regions = np.zeros(len(REGION_NAMES), np.int64)
        self.members: Counter[str] = Counter()
        self.content_bytes: Counter[str] = Counter()
        self._identities: list[np.ndarray] = []
        self._aspect = np.zeros(len(_ASPECT_STEPS) + 2, np.int64)  # the last: photos that do not open
        self._words = np.zeros(_MOST_WORDS, np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts rows of the index."""
        self.groups += batch.num_rows
        names = {identity_of(key) for key in batch["key"].to_pylist()}
        hashes = [xxhash.xxh3_64_intdigest(name.encode()) for name in names]
        self._identities.append(np.array(hashes, np.uint64))
        people = numbers_of(batch["people"])
        self.photos_per_group.update(dict(enumerate(np.bincount(people).tolist())))
        bits = numbers_of(batch["regions"].flatten())
        self.regions += [int((bits >> place & 1).sum()) for place in range(len(REGION_NAMES))]
        values = batch["aspect"].flatten()
        aspect = np.frombuffer(values.buffers()[1] or b"", np.float32)[
            values.offset : values.offset + len(values)
        ]
        places = np.where(aspect > 0, np.searchsorted(_ASPECT_STEPS, aspect), len(_ASPECT_STEPS) + 1)
        self._aspect += np.bincount(places, minlength=len(self._aspect))
        words = np.bincount(numbers_of(batch["tokens"].flatten()), minlength=_MOST_WORDS)
        self._words += words[:_MOST_WORDS]
        self._add_members(batch["members"].flatten())

    def _add_members(self, members: pa.StructArray) -> None:
        """Members and their bytes by kind: what is behind the number of the photo, such as "jpg"."""
        encoded = pc.dictionary_encode(members.field("suffix"))
        which, names = numbers_of(encoded.indices), encoded.dictionary.to_pylist()
        numbers = np.bincount(which, minlength=len(names))
        sizes = np.bincount(which, numbers_of(members.field("length")), len(names))
        for suffix, number, size in zip(names, numbers.tolist(), sizes.tolist(), strict=True):
            kind = f"NNN.{suffix[4:]}" if suffix[:3].isdecimal() and suffix[3:4] == "." else suffix
            self.members[kind] += number
            self.content_bytes[kind] += int(size)

    def identities(self) -> int:
        hashes = np.sort(np.concatenate([*self._identities, np.empty(0, np.uint64)]))
        return len(hashes) and 1 + int(np.count_nonzero(hashes[1:] != hashes[:-1]))

    def aspects(self) -> dict[str, int]:
        names = [*(f"to {step:g}" for step in _ASPECT_STEPS), f"above {_ASPECT_STEPS[-1]:g}", "unknown"]
        return {name: number for name, number in zip(names, self._aspect.tolist(), strict=True) if number}

    def words(self) -> dict[str, float]:
        captions = self._words.copy()
        captions[0] = 0
        total = int(captions.sum())
        if total == 0:
            return {"captions": 0}
        below = np.cumsum(captions)
        found = {
            "captions": total,
            "mean": round(float((captions * np.arange(_MOST_WORDS)).sum()) / total, 2),
        }
        for percent in (5, 50, 95):
            found[f"p{percent}"] = int(np.searchsorted(below, total * percent / 100))
        return found | {"most": int(np.flatnonzero(captions)[-1])}


def stats_lines(found: dict[str, Any]) -> list[str]:
    """The counts for people."""
    words = " ".join(f"{name} {value:g}" for name, value in found["caption_words"].items())
    lines = [f"{name:<17} {found[name]:,}" for name in ("groups", "photos", "identities", "shards")]
    lines.append(f"{'revision':<17} {found['revision']}")
    lines.append(f"{'bytes':<17} {found['bytes']['shards']:,}")
    lines += _block("photos per group", found["photos_per_group"])
    lines += _block("regions", found["regions"])
    lines += _block("width / height", found["aspect"])
    lines.append(f"{'caption words':<17} {words}")
    lines += _block("licences", found["licences"])
    if found["latents"] is not None:
        lines.append(f"{'latents':<17} " + "  ".join(f"{name}: {v}" for name, v in found["latents"].items()))
    for kind, number in found["members"].items():
        lines.append(f"{'members ' + kind:<25} {number:>10,}  {found['bytes']['contents'][kind]:>16,} bytes")
    return lines


def _block(title: str, counts: dict[str, int]) -> list[str]:
    return [f"{title:<17} " + "  ".join(f"{name}: {number:,}" for name, number in counts.items())]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards stats`."""
    parser.add_argument("folder", metavar="DIR")


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    found = stats(folder_of(options.folder))
    say(options, found, stats_lines(found))
    return 0
