"""What a method of training is, to everything that is not the method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from training.batch import Field
from training.captions import Tokenise
from training.models.sdxl import SdxlSettings
from training.settings import Settings


class Recipe(Protocol):
    """One method. It says what is trained, what is frozen, what it reads, its loss and its export.

    The module that it builds is called as `module(fields, streams, drop=True)` and gives each sample's
    loss, float32 [B]; `drop` says whether conditions are left out at random, as they are in training.
    Its parameters that require gradients are what is trained; `module.denoiser` is a `Denoiser`, from
    which generation draws (denoising.py). Reduction, precision, ranks,
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

    def sdxl(self) -> SdxlSettings:
        """Whose VAE (models/vae.py) makes latents of `target`."""
        ...

    def with_latents(self) -> "Recipe":
        """The same method with the field `target_latents` instead of `target`: nothing is encoded."""
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

    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """The references' fields → identity tokens [B, tokens, width], nothing dropped."""
        ...

    def nobody(self, module: nn.Module) -> Tensor:
        """Identity tokens [1, tokens, width] of no reference: what guidance leads away from."""
        ...

    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """uint8 [B, H, W, 3]: what to show as the reference beside a generated picture."""
        ...

    def export(self, adapter: Mapping[str, Tensor], path: Path) -> None:
        """Writes an adapter in the layout in which others publish the method."""
        ...

    def load_export(self, module: nn.Module, path: Path) -> None:
        """Reads that layout, strictly. Raises ValueError, one line, where keys or shapes differ."""
        ...
