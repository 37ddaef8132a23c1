"""Two photos of each group: one as reference, one as target, drawn anew in each epoch.

The draw is a pure function of (seed, epoch, key of the group): it does not depend on ranks, workers
or what was read before, and a resumed epoch draws the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from shards.format.contents import bits_of
from shards.format.members import IMAGE_SUFFIXES
from shards.reading.folder import DatasetFolder
from shards.reading.order import key_of, keys_of
from shards.reading.source import Epoch, SkippedSampleError, Source
from shards.reading.steps import Position


class Pair(NamedTuple):
    """Numbers of the two photos in their group, and their members by suffix, as "003.jpg".

    seed, epoch   what they were drawn by; whatever else is drawn for the sample is drawn by these and the key
    """

    number: int
    key: str
    reference: int
    target: int
    members: dict[str, bytes]
    seed: int = 0
    epoch: int = 0


def draw_pair(seed: int, epoch: int, key: str, photos: Sequence[int]) -> tuple[int, int]:
    """(reference, target), two different ones of `photos`; all ordered pairs are equally likely.

    Raises ValueError for fewer than two photos.
    """
    n = len(photos)
    if n < 2:
        raise ValueError(f"group {key}: a pair needs two photos, there are {n}")
    drawn = key_of(seed, epoch, xxhash.xxh3_64_intdigest(key.encode()))
    # The upper bits of a product with a whole number are uniform (to 1 in 2^64 / n²).
    reference, target = divmod(drawn * (n * (n - 1)) >> 64, n - 1)
    return photos[reference], photos[target + (target >= reference)]


def draw_pairs(
    seed: int, epoch: int, hashes: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`draw_pair` for many groups at once: places of reference and target among the photos, int64 [k].

    hashes   uint64 [k], xxh3-64 of the groups' keys
    photos   int64 [k], how many there are to choose from, at least 2
    """
    drawn = keys_of(key_of(seed, epoch), hashes)
    ways = (photos * (photos - 1)).astype(np.uint64)
    # The upper 64 bits of a product of 128, from its halves.
    low = (drawn & np.uint64(2**32 - 1)) * ways >> np.uint64(32)
    chosen = ((drawn >> np.uint64(32)) * ways + low >> np.uint64(32)).astype(np.int64)
    reference, target = np.divmod(chosen, photos - 1)
    return reference, target + (target >= reference)


class Pairs(Source):
    """A Source of `Pair`s out of a dataset of groups. Only the two photos are read.

    regions        names that must be visible in both photos: full_body, head, torso, legs, shoes
    kinds          members of a photo that are read, besides its picture
    members        instead of `kinds`: all members of a reference and of a target that are read

    A group in which fewer than two photos will do is skipped: its slot has weight 0.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        *,
        regions: Sequence[str] = (),
        kinds: Sequence[str] = ("json", "regions.png"),
        members: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder
        self.revisions = folder.revisions
        self._needed = bits_of(regions)
        self._members = members or ((*IMAGE_SUFFIXES, *kinds),) * 2

    def __len__(self) -> int:
        return len(self.folder)

    def read(self, sample: int) -> Pair:
        """The pair of epoch 0 of seed 0."""
        return self.read_in(sample, Position())

    def epoch(self, position: Position) -> Epoch:
        """A pass that draws each group's pair by the position's seed and epoch."""
        return _PairsEpoch(self, position)

    def prefetch(self, samples: np.ndarray) -> None:
        """Announces samples that will be read soon."""
        self.folder.prefetch(samples)

    def read_in(self, sample: int, position: Position) -> Pair:
        """The pair of one epoch. Raises SkippedSampleError, OSError or ValueError."""
        index = self.folder.index
        needed = self._needed
        fit = [n for n, bits in enumerate(index.regions(sample)) if bits & needed == needed]
        key = index.key(sample)
        if len(fit) < 2:
            raise SkippedSampleError(f"group {key}: {len(fit)} photos have what is asked for, a pair needs 2")
        pair = draw_pair(position.seed, position.epoch, key, fit)
        both = zip(pair, self._members, strict=True)
        wanted = {f"{photo:03d}.{kind}" for photo, kinds in both for kind in kinds}
        members = self.folder.read(sample, wanted).members
        return Pair(sample, key, *pair, members, position.seed, position.epoch)


class _PairsEpoch(Epoch):
    def __init__(self, pairs: Pairs, position: Position) -> None:
        super().__init__(pairs, position)
        self._pairs = pairs

    def read(self, number: int) -> Pair:
        return self._pairs.read_in(number, self.position)
