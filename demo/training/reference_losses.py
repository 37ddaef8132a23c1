"""Losses of one model with the true reference, another person's, and none, all else being the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from training.batch import Batch
from training.randomness import streams

if TYPE_CHECKING:  # processes that draw people import this file, and need no models
    from training.recipes.recipe import Recipe

REFERENCES = ("true", "wrong", "none")


@dataclass(frozen=True)
class Comparison:
    """By how much a loss is more than with the true reference: mean over people, and its standard error."""

    more: float
    standard_error: float

    @property
    def sigma(self) -> float:
        """The mean in standard errors."""
        return self.more / self.standard_error if self.standard_error else 0.0


@torch.no_grad()
def reference_losses(
    recipe: "Recipe", module: nn.Module, batches: Sequence[Batch], draws: int
) -> dict[str, np.ndarray]:
    """{'true', 'wrong', 'none': float64 [people]}, each the mean over so many draws of timestep and noise.

    module    of the recipe
    batches   each person once, at least two in a batch: the wrong reference is the next person's

    A draw belongs to a person: it is the same for the three references.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in REFERENCES}
    for batch in batches:
        tokens = recipe.identity(module, batch.fields)
        references = {
            "true": tokens,
            "wrong": tokens.roll(1, 0),
            "none": recipe.nobody(module).expand_as(tokens),
        }
        counted, every_text = batch.weight.numpy() > 0, torch.ones(len(batch), dtype=torch.bool)
        for name, identity in references.items():
            losses = []
            for draw in range(draws):
                drawn = streams(0, draw, batch.keys)
                losses.append(module.denoiser(batch.fields, drawn, identity, every_text).double().numpy())
            found[name].append(np.mean(losses, axis=0)[counted])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def compare(losses: dict[str, np.ndarray], other: str, to: str = "true") -> Comparison:
    """The paired differences of `other` and `to` over people."""
    differences = losses[other] - losses[to]
    return Comparison(float(differences.mean()), float(differences.std(ddof=1) / len(differences) ** 0.5))
