"""Latents of all photos of a dataset, written into a new one: the trainer then encodes nothing.

The photos are decoded and cut as the trainer does it, so that a latent is what the trainer would have
made. Work goes shard by shard (shards/tools/copying.py): the same call goes on where it was killed, and equal
input on one machine gives equal bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch
from torch import nn

from shards.format.dataset import DatasetError
from shards.format.members import is_record_name, pictures_of
from shards.format.orientation import orientation_of
from shards.reading.buckets import Size, nearest_sizes
from shards.reading.decode import decode_photo
from shards.reading.folder import DatasetFolder, Sample
from shards.reading.photo_batches import picture_of
from shards.tools.copying import Copy, copy_samples
from shards.tools.dataset_rows import DatasetRows
from training.bases.vae import Vae
from training.latents import MEMBER, STATED, Box, LatentStatement, pack_latent

_BLOCK = 512  # bytes of a tar
_WINDOW = 8  # batches, of photos that are decoded together: those of one size are encoded together


class Encoder:
    """Adds a latent to each photo of samples; one that is there already is replaced.

    source      where the VAE comes from
    vae         built by it, in the precision that the statement says, on its device
    batch       photos of one size that are encoded together, at most
    threads     that decode
    broken      photos that got none, and why, a line each
    """

    def __init__(
        self, source: Vae, vae: nn.Module, statement: LatentStatement, *, batch: int, threads: int
    ) -> None:
        self._source, self._vae, self._statement, self.batch = source, vae, statement, batch
        self._device = next(vae.parameters()).device
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.broken: list[str] = []

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples in their order. While some are encoded, the next ones are decoded."""
        begun: _Window | None = None
        for window in self._windows(samples):
            if begun is not None:
                yield from self._finish(begun)
            begun = window
        if begun is not None:
            yield from self._finish(begun)

    def _windows(self, samples: Iterator[Sample]) -> Iterator["_Window"]:
        window = _Window([], [])
        for sample in samples:
            window.samples.append(sample)
            for picture in pictures_of(sample.members):
                if f"{picture[:3]}.json" not in sample.members:
                    self._miss(sample.key, picture, ValueError("has no record NNN.json"))
            for suffix in filter(is_record_name, sample.members):
                future = self._pool.submit(_decode, sample, suffix[:3], self._statement.sizes)
                window.photos.append((sample.key, suffix[:3], future))
            if len(window.photos) >= _WINDOW * self.batch:
                yield window
                window = _Window([], [])
        if window.samples:
            yield window

    def _finish(self, window: "_Window") -> Iterator[Sample]:
        latents: dict[tuple[str, str], bytes] = {}
        by_size: dict[Size, list[tuple[str, str, np.ndarray, Box]]] = {}
        for key, number, future in window.photos:
            try:
                picture, source = future.result()
            except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                self._miss(key, number, error)
                continue
            height, width = picture.shape[:2]
            by_size.setdefault((height, width), []).append((key, number, picture, source))
        for photos in by_size.values():
            for start in range(0, len(photos), self.batch):
                latents |= self._encode(photos[start : start + self.batch])
        for sample in window.samples:
            yield sample._replace(members=_with_latents(sample, latents))

    def _encode(self, photos: Sequence[tuple[str, str, np.ndarray, Box]]) -> dict[tuple[str, str], bytes]:
        pixels = torch.from_numpy(np.stack([picture for _, _, picture, _ in photos])).to(self._device)
        means, stds = (moment.cpu().numpy() for moment in self._source.moments(self._vae, pixels))
        found = {}
        for (key, number, _, source), mean, std in zip(photos, means, stds, strict=True):
            try:
                found[key, number] = pack_latent(self._statement, mean, std, source)
            except ValueError as error:
                self._miss(key, number, error)
        return found

    def _miss(self, key: str, number: str, error: Exception) -> None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.broken.append(f"{key}.{number}: {reason}")


def precompute(
    folder: str,
    out: str,
    statement: LatentStatement,
    encoder: Encoder,
    *,
    max_samples: int,
    max_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the dataset with latents. Returns its dataset.json, which keeps revisions and order: positions
    of running trainings stay valid. Raises DatasetError."""
    source = DatasetRows(folder)
    if len(source) and not any(is_record_name(place["suffix"]) for place in source.row(0)["members"]):
        raise DatasetError(
            f"{folder}: has no photos with a record NNN.json, of which latents are made: sample "
            f"{source.row(0)['key']} has {', '.join(place['suffix'] for place in source.row(0)['members'])}"
        )
    numbers = np.arange(len(source), dtype=np.int64)
    stated = statement.stated()
    kept = {str(name): source.about[name] for name in ("revision", "history") if name in source.about}
    copy = Copy(
        [source],
        np.zeros(len(source), np.int64),
        numbers,
        # The size of a batch is stated too: results may differ by it in the last bit.
        {"operation": "precompute", "batch": encoder.batch, STATED: stated},
        {**kept, STATED: stated},
        through=encoder,
        added=_added(folder, statement),
    )
    return copy_samples(copy, out, max_samples, max_bytes, progress)


@dataclass
class _Window:
    """samples; (key, number, decoded picture and what part of the photo it is) of their photos."""

    samples: list[Sample]
    photos: list[tuple[str, str, "Future[tuple[np.ndarray, Box]]"]]


def _decode(sample: Sample, number: str, sizes: Sequence[Size]) -> tuple[np.ndarray, Box]:
    """A photo at its size, uint8 [height, width, 3], and the part of it that this is."""
    record = orjson.loads(sample.members[f"{number}.json"])
    aspect = np.array([record["width"] / record["height"]], np.float32)  # as the index has it
    picture = np.empty((*sizes[int(nearest_sizes(aspect, sizes)[0])], 3), np.uint8)
    data = picture_of(sample.members, f"{number}.")
    return picture, decode_photo(data, picture, orientation_of(data, record)).source


def _with_latents(sample: Sample, latents: dict[tuple[str, str], bytes]) -> dict[str, bytes]:
    """The members, each photo's latent behind its record."""
    members: dict[str, bytes] = {}
    for suffix, data in sample.members.items():
        if suffix.endswith(f".{MEMBER}"):
            continue
        members[suffix] = data
        latent = latents.get((sample.key, suffix[:3])) if is_record_name(suffix) else None
        if latent is not None:
            members[f"{suffix[:3]}.{MEMBER}"] = latent
    return members


def _added(folder: str, statement: LatentStatement) -> np.ndarray:
    """int64 [samples]: bytes that the latents of each take up in a shard, headers and padding included."""
    photos = DatasetFolder(folder).index.photos
    lengths = np.array([statement.member_bytes(size) for size in statement.sizes], np.int64)
    each = (_BLOCK + lengths + -lengths % _BLOCK)[nearest_sizes(photos.aspects, statement.sizes)]
    before = np.concatenate([[0], np.cumsum(each)])
    return np.diff(before[photos.starts])
