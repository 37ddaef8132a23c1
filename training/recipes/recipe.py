"""What a method of training is, to everything that is not the method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from training.batch import Field
from training.captions import Tokenise
from training.settings import Settings


class Recipe(Protocol):
    """One method. It says what is trained, what is frozen, what it reads, its loss and its export.

    The module that it builds is called as `module(fields, streams, drop=True)` and gives each sample's
    loss, float32 [B]; `drop` says whether conditions are left out at random, as they are in training.
    Its parameters that require gradients are what is trained. Reduction, precision, ranks,
    compilation and optimisation belong to the loop.
    """

    name: ClassVar[str]

    @property
    def settings(self) -> Settings:
        """All that the method depends on; a checkpoint states them."""
        ...

    def tokeniser(self) -> Tokenise:
        """Of captions. Raises ValueError, one line, where its files cannot be had."""
        ...

    def fields(self, height_px: int, width_px: int) -> Sequence[Field]:
        """What a batch must hold for targets of this size."""
        ...

    def reconstruction_share(self, progress: float) -> float:
        """Of samples whose reference is the target itself, at a progress of 0 to 1 through the training."""
        ...

    def build(self, frozen_dtype: torch.dtype) -> nn.Module:
        """The module, on torch's default device; frozen parts in `frozen_dtype`, trained ones in float32.

        Raises ValueError, one line, where weights cannot be had.
        """
        ...

    def adapter(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """By module path: what training makes, and so what a checkpoint keeps. Holds all that is trained."""
        ...

    def load_adapter(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Starts from an adapter of this stage or the one before. Raises ValueError unless it fits."""
        ...

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The repeated layers, each of which is compiled by itself."""
        ...

    def export(self, adapter: Mapping[str, Tensor], path: Path) -> None:
        """Writes an adapter in the layout in which others publish the method."""
        ...

    def load_export(self, module: nn.Module, path: Path) -> None:
        """Reads that layout, strictly. Raises ValueError, one line, where keys or shapes differ."""
        ...
