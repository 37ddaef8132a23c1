"""A keyed permutation of 0 … n − 1 that is computed place by place: no list of n numbers is held.

A Feistel network on pairs of half-words permutes the next power of four; places that leave the range
are permuted again until they are back in it (cycle walking; Black and Rogaway, Ciphers with Arbitrary
Finite Domains, CT-RSA 2002). At most three in four places lie outside, so four walks are expected at most.
"""

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


class Permutation:
    """The permutation of `range(n)` that belongs to a key."""

    def __init__(self, n: int, key: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one place, not {n}")
        self.n = n
        self._bits = np.uint64(max((n - 1).bit_length() + 1, 2) // 2)
        self._mask = np.uint64((1 << int(self._bits)) - 1)
        self._keys = [np.uint64(key_of(key, number)) for number in range(_ROUNDS)]

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
        out = self._network(given.astype(np.uint64), forward)
        outside = np.flatnonzero(out >= self.n)
        while outside.size:
            again = self._network(out[outside], forward)
            out[outside] = again
            outside = outside[again >= self.n]
        return out.astype(np.int64)

    def _network(self, values: np.ndarray, forward: bool) -> np.ndarray:
        left, right = values >> self._bits, values & self._mask
        for key in self._keys if forward else reversed(self._keys):
            if forward:
                left, right = right, left ^ (mix(right + key) & self._mask)
            else:
                left, right = right ^ (mix(left + key) & self._mask), left
        return (left << self._bits) | right
