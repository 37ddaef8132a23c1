"""A batch of noise that fits a recipe, for checks and measurements that need no data."""

from collections.abc import Sequence

import torch

from training.batch import Batch, Field


def random_batch(fields: Sequence[Field], samples: int, *, seed: int = 0) -> Batch:
    """Pictures and numbers of uniform noise, ids of 0 to 2, everything visible."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for field in fields:
        shape = (samples, *field.shape)
        if field.dtype == torch.bool:
            made[field.name] = torch.ones(shape, dtype=torch.bool)
        elif field.dtype.is_floating_point:
            made[field.name] = torch.rand(shape, generator=generator).to(field.dtype)
        else:
            highest = 256 if field.dtype == torch.uint8 else 3
            made[field.name] = torch.randint(0, highest, shape, generator=generator, dtype=field.dtype)
    return Batch.of(made, [f"noise-{number}" for number in range(samples)], seed=seed, epoch=0)
