"""The order in which an epoch reads a dataset: a pure function of (seed, epoch), for any place in it.

Samples lie in shards, and reading neighbours together is what makes object stores fast. So blocks of
neighbouring samples are permuted, and about `window` of them in a row form a window. A window is read in
rounds: each round takes one sample of every block, in an order of its own, so that samples of one block lie
about a round apart, as in a shuffle of everything, and not side by side. A dataset that fits into one
window is shuffled as a whole.

Each step is computed for single places, with no list of n numbers: opening an epoch, resuming in its
middle, and looking up one place cost the same for a thousand samples and for a billion. A Feistel network
on pairs of half-words permutes the next power of four; places that leave the range are permuted again until
they are back in it (cycle walking; Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
At most three in four places lie outside, so four walks are expected at most.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

_ROUNDS = 6
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = 2**64 - 1
BLOCK = 16  # samples
WINDOW = 1024  # blocks, at most


def mix(values: np.ndarray) -> np.ndarray:
    """uint64 → uint64, every bit of which depends on every bit given (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_A
    values = (values ^ (values >> np.uint64(27))) * _MIX_B
    return np.asarray(values ^ (values >> np.uint64(31)))


def key_of(*parts: int) -> int:
    """One 64-bit key from several whole numbers; their order counts."""
    key = 0
    for part in parts:
        key = _mix_one((key + part * _GOLDEN + 1) & _64_BITS)
    return key


def _mix_one(value: int) -> int:
    """`mix` of a single number, without the cost of an array."""
    value = (value ^ value >> 30) * int(_MIX_A) & _64_BITS
    value = (value ^ value >> 27) * int(_MIX_B) & _64_BITS
    return value ^ value >> 31


def keys_of(key: int, *parts: np.ndarray) -> np.ndarray:
    """`key_of` of a key and of arrays of whole numbers, element by element: uint64 [k]."""
    found = np.full(np.broadcast_shapes(*(np.shape(part) for part in parts)), key, np.uint64)
    for part in parts:
        found = mix(found + np.asarray(part).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(1))
    return found


def permute(places: np.ndarray, n: np.ndarray, keys: np.ndarray, *, inverse: bool = False) -> np.ndarray:
    """What stands at places of many permutations at once, or with `inverse` where these values stand.

    places   int64 [k], each of 0 to its n − 1
    n        int64 [k], how many numbers each of the permutations is of
    keys     uint64 [k], which permutation it is
    """
    bits = half_bits(n)
    network = _Network(bits, [mix(keys + np.uint64(number + 1)) for number in range(_ROUNDS)])
    return network.walk(np.asarray(places, np.int64), np.asarray(n, np.int64), not inverse)


def half_bits(n: np.ndarray) -> np.ndarray:
    """Bits of a half-word: 4 to that power is the first power of four that is not below n; uint64 [k]."""
    bits = np.ones(np.shape(n), np.uint64)
    while (small := np.left_shift(np.uint64(1), bits * np.uint64(2)) < np.asarray(n).astype(np.uint64)).any():
        bits[small] += np.uint64(1)
    return bits


class Permutation:
    """The permutation of `range(n)` that belongs to a key."""

    def __init__(self, n: int, key: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one place, not {n}")
        self.n = n
        bits = np.uint64(max((n - 1).bit_length() + 1, 2) // 2)
        self._network = _Network(bits, [np.uint64(key_of(key, number)) for number in range(_ROUNDS)])

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """int64 [k] of 0 to n − 1 → what stands at these places, int64 [k]."""
        return self._walk(places, forward=True)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """The places at which these values stand."""
        return self._walk(values, forward=False)

    def _walk(self, places: np.ndarray, forward: bool) -> np.ndarray:
        given = np.asarray(places, np.int64)
        if given.size and (given.min() < 0 or given.max() >= self.n):
            raise IndexError(f"places must be 0 to {self.n - 1}")
        return self._network.walk(given, np.int64(self.n), forward)


class _Network:
    """The Feistel network: one for all numbers (bits and keys are scalars), or one for each (arrays)."""

    def __init__(self, bits: Any, keys: Sequence[Any]) -> None:
        self._bits, self._keys = bits, keys
        self._mask = np.left_shift(np.uint64(1), bits) - np.uint64(1)

    def walk(self, places: np.ndarray, n: Any, forward: bool) -> np.ndarray:
        """int64 [k] → int64 [k]: through the network until every number is below its n again."""
        ends = np.broadcast_to(np.asarray(n).astype(np.uint64), places.shape)
        out = self._through(places.astype(np.uint64), forward)
        outside = np.flatnonzero(out >= ends)
        while outside.size:
            again = self._of(outside)._through(out[outside], forward)
            out[outside] = again
            outside = outside[again >= ends[outside]]
        return out.astype(np.int64)

    def _of(self, chosen: np.ndarray) -> "_Network":
        if np.ndim(self._bits) == 0:
            return self
        return _Network(self._bits[chosen], [key[chosen] for key in self._keys])

    def _through(self, values: np.ndarray, forward: bool) -> np.ndarray:
        left, right = values >> self._bits, values & self._mask
        for key in self._keys if forward else reversed(self._keys):
            if forward:
                left, right = right, left ^ (mix(right + key) & self._mask)
            else:
                left, right = right ^ (mix(left + key) & self._mask), left
        return (left << self._bits) | right


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
