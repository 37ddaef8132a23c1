"""The order in which an epoch reads a dataset: a pure function of (seed, epoch), for any place in it.

Samples lie in shards, and reading neighbours together is what makes object stores fast. So blocks of
neighbouring samples are permuted, `window` blocks in a row are thrown together, and the samples of
such a window are permuted. Each step is computed for single places (permutation.py): opening an
epoch, resuming in its middle, and looking up one place cost the same for a thousand samples and for
a billion, and nothing is held.
"""

from functools import lru_cache

import numpy as np

from shards.permutation import Permutation, key_of

BLOCK = 16  # samples
WINDOW = 1024  # blocks


class EpochOrder:
    """The order of one epoch over `samples` samples, numbered as the index has them."""

    def __init__(
        self, samples: int, seed: int, epoch: int, *, block: int = BLOCK, window: int = WINDOW
    ) -> None:
        if samples < 1 or block < 1 or window < 1:
            raise ValueError(f"samples, block and window must be at least 1: {samples}, {block}, {window}")
        self.samples = samples
        self._block, self._window = block, window
        self._key = key_of(seed, epoch)
        blocks = -(-samples // block)
        self._blocks = Permutation(blocks, key_of(self._key, 0))
        # The last block may be short: where it is drawn to, and how many samples it lacks.
        self._lacking = blocks * block - samples
        self._short_at = int(self._blocks.inverse(np.array([blocks - 1]))[0])
        self._inside = lru_cache(maxsize=8)(self._permutation_of_window)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places of the epoch, 0 to samples − 1 → numbers of the samples that stand there."""
        places = np.asarray(places, np.int64)
        if places.size and (places.min() < 0 or places.max() >= self.samples):
            raise IndexError(f"places must be 0 to {self.samples - 1}")
        out = np.empty(places.shape, np.int64)
        windows = self._window_of(places)
        for window in np.unique(windows):
            mine = windows == window
            start, size = self._span(int(window))
            within = self._inside(int(window), size)(places[mine] - start)
            out[mine] = self._sample(int(window), within)
        return out

    def place_of(self, samples: np.ndarray) -> np.ndarray:
        """The places at which these samples stand."""
        samples = np.asarray(samples, np.int64)
        drawn = self._blocks.inverse(samples // self._block)
        out = np.empty(samples.shape, np.int64)
        windows = drawn // self._window
        for window in np.unique(windows):
            mine = windows == window
            start, size = self._span(int(window))
            within = (drawn[mine] - window * self._window) * self._block + samples[mine] % self._block
            short = self._short_at - int(window) * self._window
            if 0 <= short < self._window:
                within = within - np.where(within >= (short + 1) * self._block, self._lacking, 0)
            out[mine] = start + self._inside(int(window), size).inverse(within)
        return out

    def _window_of(self, places: np.ndarray) -> np.ndarray:
        full = self._window * self._block
        start, size = self._span(self._short_at // self._window)
        # Windows behind the one with the short block begin that much earlier.
        return np.where(places >= start + size, places + self._lacking, places) // full

    def _span(self, window: int) -> tuple[int, int]:
        """First place of a window, and how many samples it holds."""
        full = self._window * self._block
        short = self._short_at // self._window
        start = window * full - (self._lacking if window > short else 0)
        end = min((window + 1) * full - (self._lacking if window >= short else 0), self.samples)
        return start, end - start

    def _permutation_of_window(self, window: int, size: int) -> Permutation:
        return Permutation(size, key_of(self._key, 1, window))

    def _sample(self, window: int, within: np.ndarray) -> np.ndarray:
        """The sample behind a place of a window before its permutation."""
        short = self._short_at - window * self._window
        if 0 <= short < self._window:
            end_of_short = (short + 1) * self._block - self._lacking
            within = within + np.where(within >= end_of_short, self._lacking, 0)
        blocks = self._blocks(window * self._window + within // self._block)
        return blocks * self._block + within % self._block
