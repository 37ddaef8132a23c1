"""The order in which an epoch reads a dataset: a pure function of (seed, epoch), for any place in it.

Samples lie in shards, and reading neighbours together is what makes object stores fast. So blocks of
neighbouring samples are permuted, and about `window` of them in a row form a window. A window is read
in rounds: each round takes one sample of every block, in an order of its own, so that samples of one
block lie about a round apart, as in a shuffle of everything, and not side by side. A dataset that fits
into one window is shuffled as a whole.

Each step is computed for single places (permutation.py): opening an epoch, resuming in its middle, and
looking up one place cost the same for a thousand samples and for a billion, and nothing is held.
"""

from typing import Protocol

import numpy as np

from shards.reading.permutation import Permutation, key_of, keys_of, permute

BLOCK = 16  # samples
WINDOW = 1024  # blocks, at most


class EpochOrder:
    """The order of one epoch over `samples` samples, numbered as the index has them."""

    def __init__(
        self, samples: int, seed: int, epoch: int, *, block: int = BLOCK, window: int = WINDOW
    ) -> None:
        if samples < 1 or block < 1 or window < 1:
            raise ValueError(f"samples, block and window must be at least 1: {samples}, {block}, {window}")
        self.samples = samples
        blocks = -(-samples // block)
        key = key_of(seed, epoch)
        self._order: _Order
        if blocks <= window:
            self._order = Permutation(samples, key_of(key, 0))
        else:
            self._order = _Windows(samples, key, block, window)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] places of the epoch, 0 to samples − 1 → numbers of the samples that stand there."""
        return self._order(self._checked(places, "places"))

    def place_of(self, samples: np.ndarray) -> np.ndarray:
        """The places at which these samples stand."""
        return self._order.inverse(self._checked(samples, "samples"))

    def _checked(self, numbers: np.ndarray, what: str) -> np.ndarray:
        given = np.asarray(numbers, np.int64)
        if given.size and (given.min() < 0 or given.max() >= self.samples):
            raise IndexError(f"{what} must be 0 to {self.samples - 1}")
        return given


class _Order(Protocol):
    def __call__(self, places: np.ndarray) -> np.ndarray: ...

    def inverse(self, samples: np.ndarray) -> np.ndarray: ...


class _Windows:
    """Windows of permuted blocks, as even in size as they can be; the last block may be a short one.

    The short block takes part in the first rounds of its window only, as many as it has samples.
    """

    def __init__(self, samples: int, key: int, block: int, window: int) -> None:
        self._block, self._key = block, key
        self._last = -(-samples // block) - 1
        self._blocks = Permutation(self._last + 1, key_of(key, 0))
        self._each, self._longer = divmod(self._last + 1, -(-(self._last + 1) // window))
        self._short_size = samples - self._last * block
        self._lacking = block - self._short_size
        drawn = self._blocks.inverse(np.array([self._last]))
        window_of_short, at = self._window_of(drawn)
        self._short_window, self._short_at = int(window_of_short[0]), int(at[0])

    def __call__(self, places: np.ndarray) -> np.ndarray:
        window, within = self._located(places)
        across, rounds, full = self._shape(window)
        is_late = within >= full
        across = across - is_late
        behind = np.where(is_late, within - full, within)
        number = np.where(is_late, rounds, 0) + behind // across
        at = permute(behind % across, across, keys_of(self._key, window, number))
        at = at + (is_late & (at >= self._short_at))
        block = self._blocks(self._first_of(window) + at)
        return block * self._block + permute(number, self._size_of(block), keys_of(self._key, block))

    def inverse(self, samples: np.ndarray) -> np.ndarray:
        block, inside = np.divmod(samples, self._block)
        number = permute(inside, self._size_of(block), keys_of(self._key, block), inverse=True)
        window, at = self._window_of(self._blocks.inverse(block))
        across, rounds, full = self._shape(window)
        is_late = number >= rounds
        at = at - (is_late & (at > self._short_at))
        across = across - is_late
        before = np.where(is_late, full + (number - rounds) * across, number * across)
        within = before + permute(at, across, keys_of(self._key, window, number), inverse=True)
        lacking = np.where(window > self._short_window, self._lacking, 0)
        return self._first_of(window) * self._block - lacking + within

    def _window_of(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places among the permuted blocks → which window, and the place in it."""
        edge = self._longer * (self._each + 1)
        window = np.where(
            drawn < edge, drawn // (self._each + 1), self._longer + (drawn - edge) // self._each
        )
        return window, drawn - self._first_of(window)

    def _first_of(self, window: np.ndarray) -> np.ndarray:
        """Place of a window's first block among the permuted ones."""
        return window * self._each + np.minimum(window, self._longer)

    def _located(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the epoch → which window, and the place in it."""
        short = np.array([self._short_window])
        end = int(self._first_of(short + 1)[0]) * self._block - self._lacking
        whole = places + np.where(places >= end, self._lacking, 0)
        window, at = self._window_of(whole // self._block)
        return window, at * self._block + whole % self._block

    def _shape(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of windows: blocks, rounds in which all of them take part, places of these rounds."""
        blocks = self._each + (window < self._longer)
        rounds = np.where(window == self._short_window, self._short_size, self._block)
        return blocks, rounds, blocks * rounds

    def _size_of(self, block: np.ndarray) -> np.ndarray:
        return np.where(block == self._last, self._short_size, self._block)
