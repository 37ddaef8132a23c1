"""A 64-bit perceptual hash, and all pairs within a Hamming distance in near-linear time.

The hash is the DCT hash that Zauner describes (Implementation and benchmarking of perceptual image
hash functions, 2010): signs of the low frequencies of a small grey picture against their median.
The search uses blocks as Manku, Jain and Das Sarma do (Detecting near-duplicates for web crawling,
WWW 2007): hashes within d bits agree on at least k − d of k blocks, so they meet in one of the
C(k, d) tables keyed by k − d blocks. No pair within d is missed.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

_SIDE = 32
_LOW = 8


def perceptual_hash(rgb: np.ndarray) -> int:
    """64-bit hash (0 to 2⁶⁴ − 1) of uint8 [h, w, 3] RGB."""
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()
    low[0] = 0.0  # mean brightness says nothing about the picture
    bits = low > np.median(low)
    return int(np.packbits(bits).view(">u8")[0])


def pairs_within(hashes: np.ndarray, max_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (i, j), i ≠ j, whose hashes differ in at most `max_bits` bits.

    hashes  uint64 [n], all different
    Yields index arrays (i, j) in chunks; a pair may come more than once, in either order.
    """
    count = len(hashes)
    if count < 2 or max_bits == 0:
        return
    # As many key bits as there are hashes to tell apart; more blocks mean longer keys, more tables.
    blocks = max_bits + 1
    while 64 * (blocks - max_bits) // blocks < np.log2(count) - 2 and blocks < max_bits + 4:
        blocks += 1
    edges = [64 * block // blocks for block in range(blocks + 1)]
    masks = [((1 << (edges[b + 1] - edges[b])) - 1) << edges[b] for b in range(blocks)]
    for chosen in combinations(range(blocks), blocks - max_bits):
        mask = np.uint64(sum(masks[block] for block in chosen))
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], hashes[order]
        step = 1
        at = np.arange(count)
        # Whoever shares its key with the place `step` behind also shares it with all between.
        while len(at := at[at < count - step]) and len(at := at[keys[at] == keys[at + step]]):
            hits = at[np.bitwise_count(ordered[at] ^ ordered[at + step]) <= max_bits]
            if len(hits):
                yield order[hits], order[hits + step]
            step += 1
