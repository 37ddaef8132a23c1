"""A batch as the loop and the recipes know it, where batches come from, and batches of noise for checks."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from training.randomness import streams


@dataclass(frozen=True)
class Field:
    """One named tensor of a batch: its shape behind the batch's dimension, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


TALLIED = ("upscaled", "too_small")
"""Samples whose target is larger than its part of the photo, and those left out for a small one."""


@dataclass(frozen=True)
class Batch:
    """B samples.

    fields    tensors [B, …] by name; which ones, the recipe says
    keys      of the samples
    streams   int64 [B], their random streams in this epoch (randomness.py)
    weight    float32 [B]: 0 where a place only fills the batch up
    counts    what the host knows of the batch before it is on a device (`Recipe.counts`): sizes of what is
              computed, which a device could not tell without being waited for. The module is given them
    tally     samples of which something is to be said, by the names of TALLIED
    """

    fields: Mapping[str, Tensor]
    keys: Sequence[str]
    streams: Tensor
    weight: Tensor
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tally: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Tensor],
        keys: Sequence[str],
        *,
        seed: int,
        epoch: int,
        weight: Tensor | None = None,
    ) -> "Batch":
        """Names the samples' streams. Without `weight` all count."""
        return cls(
            fields, keys, streams(seed, epoch, keys), torch.ones(len(keys)) if weight is None else weight
        )

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; copies from pinned memory do not wait."""
        return Batch(
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.fields.items()},
            self.keys,
            self.streams.to(device, non_blocking=True),
            self.weight.to(device, non_blocking=True),
            self.counts,
            self.tally,
        )


class Batches(Protocol):
    """An endless stream of one rank's batches; all ranks' streams go on for the same number of them.

    `state_dict` is the position behind the last batch that was handed out, the same on every rank: it
    says what all ranks together have consumed, so that another number of ranks can go on from it.
    """

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, with this stream's own rank, ranks and batch size."""
        ...


def check_fields(wanted: Sequence[Field], batch: Batch) -> None:
    """Raises ValueError, one line, where a batch lacks a field or has it in another shape or dtype."""
    for field in wanted:
        found = batch.fields.get(field.name)
        if found is None:
            have = ", ".join(sorted(batch.fields)) or "nothing"
            raise ValueError(f"the recipe needs the field {field.name}; the batch has {have}")
        if tuple(found.shape) != (len(batch), *field.shape) or found.dtype != field.dtype:
            raise ValueError(
                f"the field {field.name} is {found.dtype} {list(found.shape)}, the recipe needs "
                f"{field.dtype} {[len(batch), *field.shape]}"
            )


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
