"""What a method of training is, to everything that is not the method; and how conditions are dropped."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from training.bases.base import Base
from training.batch import Field
from training.captions import Tokenise
from training.method_settings import DropoutSettings
from training.models.lora import is_lora, own_tensors, peft_tensors
from training.randomness import Purpose, uniform
from training.released_layout import LayoutError, copy_exactly, load_strictly, read_released, write_released
from training.settings import Settings

NO_DROPOUT = DropoutSettings(identity=0, text=0, both=0, region=0)


def keep_conditions(settings: DropoutSettings, streams: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [B] streams → whether identity and whether text is kept, bool [B] each."""
    drawn = uniform(streams, Purpose.DROP_CONDITION)[:, 0]
    text_from = settings.both + settings.identity
    no_identity = drawn < text_from
    no_text = (drawn < settings.both) | ((drawn >= text_from) & (drawn < text_from + settings.text))
    return ~no_identity, ~no_text


def keep_regions(settings: DropoutSettings, streams: Tensor, regions: int) -> Tensor:
    """int64 [B] streams → whether each region is kept, bool [B, regions]."""
    return uniform(streams, Purpose.DROP_REGION, regions) >= settings.region


_IDENTITY, _DENOISER = "identity.", "denoiser."


class Recipe(ABC):
    """One method on one base. It says what is trained and frozen, what it reads of the reference, its loss.

    The module that it builds has two parts: `identity`, what makes identity tokens and is trained, and
    `denoiser`, the base (bases/base.py). It is called as `module(fields, streams, drop=True, **counts)` and
    gives each sample's loss, float32 [B]; `drop` says whether conditions are left out at random, as they are
    in training, and `counts` are those of `counts`, or none. Its parameters that require gradients are what
    is trained. Reduction, precision, ranks, compilation and optimisation belong to the loop.

    settings   of the class `kind`, with the base's and `denoising` besides; a checkpoint states them
    """

    name: str
    kind: ClassVar[type[Settings]]

    def __init__(self, settings: Any, base: Base) -> None:
        self.settings, self.base = settings, base

    @abstractmethod
    def reference_fields(self) -> list[Field]:
        """What is read of the reference, from the list at the top of pair_fields.py."""

    @abstractmethod
    def build(self, frozen_dtype: torch.dtype) -> nn.Module:
        """The module, on torch's default device; frozen parts in `frozen_dtype`, trained ones in float32.

        Raises ValueError, one line, where weights cannot be had.
        """

    @abstractmethod
    def identity(self, module: nn.Module, fields: Mapping[str, Tensor]) -> Tensor:
        """The references' fields → identity tokens [B, tokens, width], nothing dropped."""

    @abstractmethod
    def nobody(self, module: nn.Module) -> Tensor:
        """Identity tokens [1, tokens, width] of no reference: what guidance leads away from."""

    @abstractmethod
    def reference_pictures(self, fields: Mapping[str, Tensor]) -> Tensor:
        """uint8 [B, H, W, 3]: what to show as the reference beside a generated picture."""

    @property
    def guidance_keeps_identity(self) -> bool:
        """Whether guidance leads away from a picture without text alone, of the same identity; else from one
        of nobody too."""
        return False

    def tokeniser(self) -> Tokenise:
        """Of captions, as the base takes them. Raises WeightsError."""
        return self.base.tokeniser()

    def reconstruction_share(self, progress: float) -> float:
        """Of samples whose reference is the target itself, at a progress of 0 to 1 through the training."""
        return 0.0

    def counts(self, fields: Mapping[str, Tensor], streams: Tensor, *, drop: bool) -> dict[str, int]:
        """What the module is told of a batch besides: by the host, which has its fields and streams before
        the device has, as how much of it has to be computed at all. Nothing, for most."""
        return {}

    def fields(self, height_px: int, width_px: int) -> Sequence[Field]:
        """What a batch must hold for targets of this size."""
        return [*self.reference_fields(), *self.base.fields(height_px, width_px)]

    def with_denoising(self, **changed: Any) -> Self:
        """The same method with other settings of denoising, as cached_latents=True: nothing is encoded."""
        base = self.base.with_denoising(**changed)
        made = type(self)(self.settings.model_copy(update={"denoising": base.denoising}), base)
        made.name = self.name
        return made

    def adapter(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """By module path: what training makes, and so what a checkpoint keeps. Holds all that is trained."""
        made = {f"{_IDENTITY}{name}": tensor for name, tensor in module.identity.named_parameters()}
        return made | {f"{_DENOISER}{name}": tensor for name, tensor in module.denoiser.trained().items()}

    def load_adapter(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Starts from an adapter. Raises ValueError unless keys and shapes are this module's."""
        copy_exactly(self.adapter(module), tensors, "adapter")

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The repeated layers, each of which is compiled by itself."""
        return list(module.denoiser.blocks())

    def released(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An adapter under the keys in which others publish the method, without LoRA that has its own file.

        Raises LayoutError.
        """
        made, trained = (
            {path.removeprefix(part): tensor for path, tensor in adapter.items() if path.startswith(part)}
            for part in (_IDENTITY, _DENOISER)
        )
        if self.base.lora_beside:
            trained = {path: tensor for path, tensor in trained.items() if not is_lora(path)}
        return {f"image_proj.{name}": tensor for name, tensor in made.items()} | self.base.released(trained)

    def export(self, adapter: Mapping[str, Tensor], path: Path, layout: str | None = None) -> None:
        """Writes an adapter in the layout in which others publish the method, or in another of its base's.

        LoRA that has its own file (`Base.lora_beside`) is written to `lora_file(path)`, as PEFT names it.

        Raises LayoutError, one line, for a layout that there is not, or that has no place for it.
        """
        tensors, others = self.released(adapter), self.base.other_layouts()
        if layout is not None and layout not in others:
            known = f": there are {', '.join(others)}" if others else ""
            raise LayoutError(f"the base {self.base.name} has no layout {layout!r}{known}")
        write_released(path, tensors if layout is None else others[layout](tensors))
        lora = {name.removeprefix(_DENOISER): t for name, t in adapter.items() if is_lora(name)}
        if lora and self.base.lora_beside:
            write_released(lora_file(path), peft_tensors(lora, self.base.denoising.lora.scale))

    def export_merged(self, module: nn.Module, path: Path) -> None:
        """Writes a module whose LoRA lies within the weights of its base, as if the base had been tuned.

        Raises ValueError, one line, for quantised weights.
        """
        merged = {f"{_DENOISER}{name}": tensor for name, tensor in module.denoiser.merged().items()}
        write_released(path, self.released({**self.adapter(module), **merged}))

    def load_export(self, module: nn.Module, path: Path, *, lora: bool = True) -> None:
        """Reads that layout, strictly; LoRA that the module has from the file beside it, where `lora`.

        Raises LayoutError, one line, where keys or shapes differ.
        """
        tensors = read_released(path)
        load_strictly(module.identity, tensors, "image_proj")
        module.denoiser.load_released(tensors)
        own = {name: p for name, p in module.denoiser.trained().items() if is_lora(name)}
        if own and lora and self.base.lora_beside:
            given = read_released(lora_file(path))
            copy_exactly(own, own_tensors(given, self.base.denoising.lora.scale), str(lora_file(path)))


def lora_file(path: Path) -> Path:
    """Where the LoRA of an export lies: weight.safetensors has weight.lora.safetensors beside it."""
    return path.with_suffix(".lora.safetensors")
