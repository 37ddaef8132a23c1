"""A dataset on a local disk, opened: samples by number, their members by suffix."""

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from shards.byte_ranges import ByteRanges, Span
from shards.index import Index
from shards.local_files import LocalFiles
from shards.revisions import Revisions
from shards.sample import SCHEMA_VERSION


class DatasetError(ValueError):
    """A folder that cannot be read as a dataset; `str()` is one line that says why."""


class Sample(NamedTuple):
    """key, and {suffix: bytes} of the members that were asked for, such as "000.jpg" and "json"."""

    number: int
    key: str
    members: dict[str, bytes]


class DatasetFolder:
    """A Source of samples, in the order of the index. Safe to read from several threads.

    folder     a local folder with dataset.json and the index
    suffixes   members that are read; None reads all
    verify     whether each member is compared with its checksum: one that differs is a ValueError
    files      what reads the shards, numbered as in dataset.json; None: they lie in the folder

    `revisions` says what was forgotten of the dataset, so that a position of an older revision is
    carried over. A copy that is sent to another process opens the folder anew.
    """

    def __init__(
        self,
        folder: str,
        *,
        suffixes: Sequence[str] | None = None,
        verify: bool = True,
        files: ByteRanges | None = None,
    ) -> None:
        root = Path(folder)
        self._given = (folder, suffixes, verify, files)
        self.about = read_dataset_json(root)
        try:
            self.index = Index(str(root / _index_file(self.about)))
            self.revisions = Revisions.of(self.about)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{folder}: {error}") from None
        if len(self.index) != self.about["groups"]:
            raise DatasetError(
                f"{folder}: index.arrow has {len(self.index)} samples, dataset.json {self.about['groups']}"
            )
        self._files = files or LocalFiles([str(root / shard["name"]) for shard in self.about["shards"]])
        self._suffixes = None if suffixes is None else frozenset(suffixes)
        self._verify = verify

    def __reduce__(self) -> Any:
        return _folder_from, self._given

    def __len__(self) -> int:
        return len(self.index)

    def read(self, sample: int, suffixes: Container[str] | None = None) -> Sample:
        """The wanted members; `suffixes` instead of those that the folder was opened with.

        Raises OSError where they cannot be read, ValueError where they differ.
        """
        wanted = self._suffixes if suffixes is None else suffixes
        read, verify = self._files.read, self._verify
        shard, names, offsets, lengths, checksums = self.index.layout(sample)
        members: dict[str, bytes] = {}
        for number, suffix in enumerate(names):
            if wanted is not None and suffix not in wanted:
                continue
            content = read(shard, offsets[number], lengths[number])
            if verify and xxhash.xxh3_128_digest(content) != checksums[16 * number : 16 * number + 16]:
                name = self.about["shards"][shard]["name"]
                raise ValueError(f"{name}: member {suffix} at byte {offsets[number]} is not what was written")
            members[suffix] = content
        return Sample(sample, self.index.key(sample), members)

    def prefetch(self, samples: np.ndarray) -> None:
        """Tells the files that these samples, int64 [k], will be read soon."""
        shard, offset, length = self.index.spans(samples)
        spans = zip(shard.tolist(), offset.tolist(), length.tolist(), strict=True)
        self._files.prefetch([Span(*span) for span in spans])

    def close(self) -> None:
        """Closes the shards that are open."""
        self._files.close()


def _index_file(about: dict[str, Any]) -> str:
    """File name of the mapped index that dataset.json names; it carries the revision of the dataset."""
    return next((name for name in about.get("index", {}) if name.endswith(".arrow")), "index.arrow")


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


def _folder_from(
    folder: str, suffixes: Sequence[str] | None, verify: bool, files: ByteRanges | None
) -> DatasetFolder:
    return DatasetFolder(folder, suffixes=suffixes, verify=verify, files=files)
