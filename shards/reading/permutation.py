"""A keyed permutation of 0 … n − 1 that is computed place by place: no list of n numbers is held.

A Feistel network on pairs of half-words permutes the next power of four; places that leave the range
are permuted again until they are back in it (cycle walking; Black and Rogaway, Ciphers with Arbitrary
Finite Domains, CT-RSA 2002). At most three in four places lie outside, so four walks are expected at most.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_ROUNDS = 6
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = 2**64 - 1


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
