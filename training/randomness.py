"""Counter-based randomness: a number is a function of (seed, epoch, sample, purpose, place) alone.

There is no state to save, and no order in which numbers must be drawn. So a resumed run, another
number of ranks, another batch size or another number of workers see the same drops, the same noise
and the same timesteps for a sample. The generator is Philox4x32-10 (Salmon et al., Parallel Random
Numbers: As Easy as 1, 2, 3, SC 2011), written in integer tensor operations: the bits are the same on
every device, and a batch is drawn in one go without waiting for the device.
"""

from collections.abc import Sequence
from enum import IntEnum

import torch
import xxhash
from torch import Tensor

from shards.reading.order import key_of

_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a number is for. Numbers of different purposes are independent; never renumber them."""

    TIMESTEP = 0
    NOISE = 1
    NOISE_OFFSET = 2
    LATENT = 3
    DROP_CONDITION = 4
    DROP_REGION = 5
    PAIR = 6
    RECONSTRUCTION = 7
    CROP = 8
    FLIP = 9
    REFERENCE_KIND = 10
    COLOUR = 11


def streams(seed: int, epoch: int, keys: Sequence[str]) -> Tensor:
    """int64 [len(keys)] on the CPU: one 64-bit key for each sample of an epoch."""
    words = [key_of(seed, epoch, xxhash.xxh3_64_intdigest(key.encode())) for key in keys]
    return torch.tensor([word - 2**64 if word >= 2**63 else word for word in words], dtype=torch.int64)


def philox(stream: Tensor, counter: Tensor) -> Tensor:
    """int64 [..., 4] of 0 to 2^32 − 1: the block of Philox4x32-10.

    stream    int64 [...], the 64-bit key
    counter   int64 [..., 4], four words of 0 to 2^32 − 1, of a shape that broadcasts against stream's
    """
    a, b, c, d = counter.unbind(-1)
    key = [stream & _LOW, (stream >> 32) & _LOW]
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps in int64, and its bits are still all there.
        first, second = a * _MULTIPLY[0], c * _MULTIPLY[1]
        a, b, c, d = (
            ((second >> 32) & _LOW) ^ b ^ key[0],
            second & _LOW,
            ((first >> 32) & _LOW) ^ d ^ key[1],
            first & _LOW,
        )
        key = [(word + weyl) & _LOW for word, weyl in zip(key, _WEYL, strict=True)]
    return torch.stack([a, b, c, d], dim=-1)


def uniform(streams: Tensor, purpose: Purpose, count: int = 1) -> Tensor:
    """float32 [B, count], from 0 to below 1, in steps of 2^-24."""
    return (_words(streams, purpose, count).flatten(1)[:, :count] >> 8).float() * 2.0**-24


def integers(streams: Tensor, purpose: Purpose, below: int) -> Tensor:
    """int64 [B], from 0 to below `below` (at most 2^31); no value is likelier than another by 2^-32."""
    if not 1 <= below <= 2**31:
        raise ValueError(f"whole numbers below {below} cannot be drawn: 1 to 2^31")
    return (_words(streams, purpose, 1)[:, 0, 0] * below) >> 32


def normal(streams: Tensor, purpose: Purpose, shape: Sequence[int]) -> Tensor:
    """float32 [B, *shape] of mean 0 and variance 1, by Box and Muller's transform; at most 6.7 in size."""
    count = 1
    for size in shape:
        count *= size
    # The smallest value is 2^-32 and not 0, whose logarithm is infinite.
    unit = (_words(streams, purpose, count).float() + 1) * 2.0**-32
    radius = torch.sqrt(-2 * torch.log(unit[..., :2].clamp(max=1)))
    angle = 2 * torch.pi * unit[..., 2:]
    both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return both.flatten(1)[:, :count].unflatten(1, tuple(shape))


def _words(streams: Tensor, purpose: Purpose, count: int) -> Tensor:
    """int64 [B, ceil(count / 4), 4] of 32 bits each."""
    blocks = torch.arange(-(-count // 4), device=streams.device)
    counter = torch.stack([blocks, *(torch.full_like(blocks, word) for word in (int(purpose), 0, 0))], -1)
    return philox(streams[:, None], counter)
