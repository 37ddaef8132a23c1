"""What steps have given, kept on the device and read every so often; and the guard against NaN.

Reading a number makes the host wait for the device. So losses and gradient norms stay there until
`read`, which fetches all of them at once. A step that was not finite is found then, and its sample is
named: no checkpoint is written between a bad step and its discovery, because one is read before each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.ranks import Ranks


class NonFiniteError(RuntimeError):
    """A loss or gradient was NaN or infinite; `str()` is one line that names step and samples."""


@dataclass(frozen=True)
class StepResult:
    """Of one step over all ranks: weighted mean loss, norm of the gradient before it was clipped."""

    step: int
    loss: float
    grad_norm: float


@dataclass
class _Row:
    step: int
    keys: list[str]
    losses: list[Tensor]
    counts: list[Tensor]  # whether a sample counts
    share: Tensor
    norm: Tensor


class StepRecord:
    """`begin` a step, `add` its micro-batches, `end` it; `read` what has gathered."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._rows: list[_Row] = []

    def begin(self, step: int) -> None:
        """Of all ranks."""
        zero = torch.zeros((), device=self._ranks.device)
        self._rows.append(_Row(step, [], [], [], zero, zero))

    def add(self, keys: Sequence[str], losses: Tensor, weight: Tensor, share: Tensor) -> None:
        """Float [B] losses and weights; `share`: this micro-batch's part of the step's mean loss."""
        row = self._rows[-1]
        row.keys += keys
        row.losses.append(losses.detach())
        row.counts.append(weight > 0)
        row.share = row.share + share.detach()

    def end(self, norm: Tensor) -> None:
        """A scalar: the norm of the gradient, the same on every rank."""
        self._rows[-1].norm = norm.detach()

    def read(self) -> list[StepResult]:
        """The steps since the last read; all ranks read together. Raises NonFiniteError on every rank."""
        rows, self._rows = self._rows, []
        if not rows:
            return []
        shares = self._ranks.sum(torch.stack([row.share for row in rows]))
        norms = torch.stack([row.norm.to(shares.device, torch.float32) for row in rows])
        results = [
            StepResult(row.step, loss, norm)
            for row, (loss, norm) in zip(rows, torch.stack([shares, norms], 1).tolist(), strict=True)
        ]
        for row, result in zip(rows, results, strict=True):
            if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
                raise NonFiniteError(self._why(row, result))
        return results

    def _why(self, row: _Row, result: StepResult) -> str:
        finite = torch.isfinite(torch.cat(row.losses)) | ~torch.cat(row.counts)
        bad = [key for key, fine in zip(row.keys, finite.tolist(), strict=True) if not fine]
        named = [key for keys in self._ranks.gather(bad) for key in keys]
        if named:
            return f"step {row.step}: the loss of {', '.join(named)} is not finite; the run stops here"
        everyone = [key for keys in self._ranks.gather(row.keys) for key in keys]
        return (
            f"step {row.step}: the gradient's norm is {result.grad_norm} though each loss is finite; "
            f"its samples: {', '.join(everyone)}"
        )
