"""A dataset on a local disk, opened: samples by number, their members by suffix."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from shards.index import Index, Place
from shards.local_files import LocalFiles
from shards.sample import SCHEMA_VERSION

_GAP_BYTES = 65_536  # wanted members that lie nearer are fetched in one read


class DatasetError(ValueError):
    """A folder that cannot be read as a dataset; `str()` is one line that says why."""


@dataclass(frozen=True)
class Sample:
    """key, and {suffix: bytes} of the members that were asked for, such as "000.jpg" and "json"."""

    number: int
    key: str
    members: dict[str, bytes]


class DatasetFolder:
    """A Source of samples, in the order of the index. Safe to read from several threads.

    suffixes   members that are read; None reads all
    verify     whether each member is compared with its checksum: one that differs is a ValueError
    """

    def __init__(self, folder: str, *, suffixes: Sequence[str] | None = None, verify: bool = True) -> None:
        root = Path(folder)
        self.about = read_dataset_json(root)
        try:
            self.index = Index(str(root / "index.arrow"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{folder}: {error}") from None
        shards = [str(root / shard["name"]) for shard in self.about["shards"]]
        if len(self.index) != self.about["groups"]:
            raise DatasetError(
                f"{folder}: index.arrow has {len(self.index)} samples, dataset.json {self.about['groups']}"
            )
        self._files = LocalFiles(shards)
        self._suffixes = None if suffixes is None else frozenset(suffixes)
        self._verify = verify

    def __len__(self) -> int:
        return len(self.index)

    def read(self, sample: int) -> Sample:
        """The wanted members. Raises OSError where they cannot be read, ValueError where they differ."""
        places = self.index.members(sample)
        checksums = self.index.checksums(sample) if self._verify else None
        members: dict[str, bytes] = {}
        run: list[tuple[Place, int]] = []
        for number, place in enumerate(places):
            if self._suffixes is not None and place.suffix not in self._suffixes:
                continue
            if run and place.offset - (run[-1][0].offset + run[-1][0].length) > _GAP_BYTES:
                self._fetch(run, checksums, members)
                run = []
            run.append((place, number))
        if run:
            self._fetch(run, checksums, members)
        return Sample(sample, self.index.key(sample), members)

    def close(self) -> None:
        """Closes the shards that are open."""
        self._files.close()

    def _fetch(
        self, run: list[tuple[Place, int]], checksums: list[bytes] | None, members: dict[str, bytes]
    ) -> None:
        first, last = run[0][0], run[-1][0]
        data = self._files.read(first.shard, first.offset, last.offset + last.length - first.offset)
        for place, number in run:
            start = place.offset - first.offset
            content = data[start : start + place.length]
            if checksums is not None and xxhash.xxh3_128_digest(content) != checksums[number]:
                name = self.about["shards"][place.shard]["name"]
                raise ValueError(
                    f"{name}: member {place.suffix} at byte {place.offset} is not what was written"
                )
            members[place.suffix] = content


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """dataset.json of a folder. Raises DatasetError where there is none, or one of a newer version."""
    file = folder / "dataset.json"
    try:
        about = json.loads(file.read_text())
        version = str(about["schema"])
        major = int(version.split(".")[0])
    except FileNotFoundError:
        raise DatasetError(
            f"{folder}: no dataset.json: not a dataset, or one that is being written"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file}: {str(error).splitlines()[0]}") from None
    ours = int(SCHEMA_VERSION.split(".")[0])
    if major > ours:
        raise DatasetError(f"{folder}: has schema {version}; this version of persona reads up to {ours}.x")
    return dict(about)
