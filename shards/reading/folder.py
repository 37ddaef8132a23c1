"""A dataset on a disk or in an object store, opened: samples by number, their members by suffix."""

import json
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from shards.format.dataset import DatasetError, problem_in
from shards.format.index import Index, Span
from shards.format.sample import SCHEMA_VERSION
from shards.reading.dataset_place import DatasetPlace, place_of
from shards.reading.revisions import Revisions
from shards.reading.source import Source
from shards.remote.disk_cache import DiskCache


class Sample(NamedTuple):
    """key, and {suffix: bytes} of the members that were asked for, such as "000.jpg" and "json"."""

    number: int
    key: str
    members: dict[str, bytes]


class DatasetFolder(Source):
    """A Source of samples, in the order of the index. Safe to read from several threads.

    folder     with dataset.json and the index: a path, or a URL such as s3://bucket/prefix
    suffixes   members that are read; None reads all
    verify     whether each member is compared with its checksum: one that differs is a ValueError
    cache      of a URL: keeps the index and pieces of the shards on a local disk, for all epochs and
               all processes of a machine. Without one the index is copied each time, and of the
               shards there is only what is read ahead, in memory

    `revisions` says what was forgotten of the dataset, so that a position of an older revision is
    carried over. A copy that is sent to another process opens the folder anew.
    """

    def __init__(
        self,
        folder: str,
        *,
        suffixes: Sequence[str] | None = None,
        verify: bool = True,
        cache: DiskCache | None = None,
    ) -> None:
        self._given = (folder, suffixes, verify, cache)
        try:
            self._place = place_of(folder, cache)
        except OSError as error:
            raise DatasetError(str(error)) from None
        try:
            self.about = _about(folder, self._place)
            self.index = _index(folder, self._place, self.about)
            self.revisions = _revisions(folder, self.about)
        except DatasetError:
            self._place.close()
            raise
        self._files = self._place.shards(self.about["shards"])
        self._suffixes = None if suffixes is None else frozenset(suffixes)
        self._verify = verify

    def __reduce__(self) -> Any:
        return _folder_from, self._given

    def __len__(self) -> int:
        return len(self.index)

    @property
    def place(self) -> str:
        """The path or URL, as it was given."""
        return self._given[0]

    def read(self, sample: int, suffixes: Container[str] | None = None) -> Sample:
        """The wanted members; `suffixes` instead of those that the folder was opened with.

        Raises OSError where they cannot be read, ValueError where they differ.
        """
        wanted = self._suffixes if suffixes is None else suffixes
        read, verify = self._files.read, self._verify
        shard, names, offsets, lengths, checksums = self.index.layout(sample)
        members: dict[str, bytes] = {}
        for number, suffix in enumerate(names):
            # Others write `JPG` too.
            if wanted is not None and suffix not in wanted and suffix.lower() not in wanted:
                continue
            content = read(shard, offsets[number], lengths[number])
            if verify and xxhash.xxh3_128_digest(content) != checksums[16 * number : 16 * number + 16]:
                name = self.about["shards"][shard]["name"]
                raise ValueError(f"{name}: member {suffix} at byte {offsets[number]} is not what was written")
            members[suffix] = content
        return Sample(sample, self.index.key(sample), members)

    def prefetch(self, samples: np.ndarray) -> None:
        """Announces that these samples, int64 [k], will be read soon."""
        shard, offset, length = self.index.spans(samples)
        spans = zip(shard.tolist(), offset.tolist(), length.tolist(), strict=True)
        self._files.prefetch([Span(*span) for span in spans])

    def small_file(self, name: str) -> bytes:
        """A small file of the dataset, whole. Raises DatasetError, one line."""
        folder = self._given[0]
        try:
            return self._place.read(name)
        except OSError as error:
            reason = f"{folder}/{name}: {error.strerror}" if error.strerror else str(error)
            raise DatasetError(reason) from None

    def close(self) -> None:
        """Closes the shards that are open."""
        self._place.close()


def read_dataset_json(folder: str | Path) -> dict[str, Any]:
    """dataset.json of a folder or URL. Raises DatasetError where there is none, or one of a newer version."""
    with _opened(str(folder)) as place:
        return _about(str(folder), place)


@contextmanager
def _opened(folder: str) -> Iterator[DatasetPlace]:
    try:
        place = place_of(folder, None)
    except OSError as error:
        raise DatasetError(str(error)) from None
    try:
        yield place
    finally:
        place.close()


def _about(folder: str, place: DatasetPlace) -> dict[str, Any]:
    try:
        about = json.loads(place.read("dataset.json"))
        version = str(about["schema"])
        major = int(version.split(".")[0])
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{folder}: {_why_no_dataset(folder)}") from None
    except OSError as error:
        reason = f"{folder}/dataset.json: {error.strerror}" if error.strerror else str(error)
        raise DatasetError(reason) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{folder}/dataset.json: {str(error).splitlines()[0]}") from None
    ours = int(SCHEMA_VERSION.split(".")[0])
    if major > ours:
        raise DatasetError(f"{folder}: has schema {version}; this version of persona reads up to {ours}.x")
    wrong = problem_in(about)
    if wrong is not None:
        raise DatasetError(f"{folder}/dataset.json: {wrong}")
    return dict(about)


def _why_no_dataset(folder: str) -> str:
    """And where one is, if that can be seen."""
    here = Path(folder)
    if "://" not in folder:
        near = (
            [here.parent]
            if here.is_file()
            else [here / "shards", *sorted(here.glob("*/shards")), here.parent]
        )
        found = next((place for place in near if (place / "dataset.json").is_file()), None)
        meant = "" if found is None else f"; did you mean {found}?"
        if here.is_file():
            return f"is a file, and a dataset is a folder with dataset.json{meant}"
        if not here.exists():
            return f"no such folder{meant}"
        if found is not None:
            return f"no dataset.json{meant}"
    return "no dataset.json: not a dataset, or one that is being written"


def _index(folder: str, place: DatasetPlace, about: dict[str, Any]) -> Index:
    """The mapped index that dataset.json names; the name carries the revision of the dataset."""
    named = about.get("index", {})
    name = next((name for name in named if name.endswith(".arrow")), "index.arrow")
    try:
        index = place.open_index(name, named.get(name, ""))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder}: {error}") from None
    if len(index) != about["groups"]:
        raise DatasetError(f"{folder}: {name} has {len(index)} samples, dataset.json {about['groups']}")
    return index


def _revisions(folder: str, about: dict[str, Any]) -> Revisions:
    try:
        return Revisions.of(about)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder}/dataset.json: {error}") from None


def _folder_from(
    folder: str, suffixes: Sequence[str] | None, verify: bool, cache: DiskCache | None
) -> DatasetFolder:
    return DatasetFolder(folder, suffixes=suffixes, verify=verify, cache=cache)
