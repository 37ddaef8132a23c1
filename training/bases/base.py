"""What a pretrained model is, to everything that is not that model.

A `Base` is its settings: what it reads of a sample, its VAE, its sizes. A `Denoiser` is the base built, with
room for identity tokens beside its text, and gives each sample's loss. A recipe makes the tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from training.bases.schedules import Schedule
from training.bases.vae import Vae
from training.batch import Field
from training.captions import Tokenise
from training.method_settings import DenoisingSettings
from training.models.local_weights import cast, keep_on_host, lent
from training.randomness import Purpose, normal
from training.settings import Settings

Text = tuple[Tensor, ...]
"""What a base makes of captions and sizes, tensors [B, …]: the base alone knows what each is."""


class Base(ABC):
    """One pretrained model and how it is trained on.

    settings    of the class `kind`, under the base's name in `method`
    denoising   of the class `denoising_kind`, under `denoising`
    vae         where its latents come from
    lora_beside   whether LoRA is published in a file of its own, beside the adapter's
    scales_identity   whether its `Denoiser.generating` knows scales of the identity other than 1
    takes_pictures    whether packed latents of pictures can be its identity tokens: `build` is then given
                      `grids`, height and width of each picture in tokens, and a token of zeros is missing
    draws_latents     whether a training draws a latent of its mean and deviation; if not it takes the mean
    """

    name: ClassVar[str]
    kind: ClassVar[type[Settings]]
    denoising_kind: ClassVar[type[DenoisingSettings]] = DenoisingSettings
    vae: Vae
    scales_identity: ClassVar[bool] = False
    lora_beside: ClassVar[bool] = False
    takes_pictures: ClassVar[bool] = False
    draws_latents: ClassVar[bool] = True

    def check_identity_scale(self, scale: float) -> None:
        """Raises ValueError, one line, for a scale that it cannot generate with."""
        if scale != 1 and not self.scales_identity:
            raise ValueError(f"identity_scale {scale}: the base {self.name} knows none but 1")

    def __init__(self, settings: Any, denoising: Any) -> None:
        self.settings, self.denoising = settings, denoising

    @property
    @abstractmethod
    def size_step_px(self) -> int:
        """Height and width of pictures are multiples of it."""

    @property
    @abstractmethod
    def token_width(self) -> int | None:
        """Of an identity token; None where only the folder of the weights says."""

    @abstractmethod
    def tokeniser(self) -> Tokenise:
        """Of captions. Raises WeightsError where its files cannot be had."""

    @abstractmethod
    def text_fields(self) -> list[Field]:
        """The fields that `Denoiser.text` reads: caption_ids as the tokeniser makes them, and target_cut
        (pair_fields.py) where the base is told sizes."""

    @abstractmethod
    def build(self, frozen_dtype: torch.dtype, tokens: int) -> "Denoiser":
        """The base with room for so many identity tokens, on torch's default device.

        Raises WeightsError where weights cannot be had.
        """

    @abstractmethod
    def released_names(self, paths: Iterable[str]) -> dict[str, str]:
        """{path of a trained parameter in the denoiser: key in the files that others publish}."""

    def released(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a training made of the base, by path in the denoiser → under the keys that others publish."""
        names = self.released_names(trained)
        return {names[path]: tensor for path, tensor in trained.items()}

    def other_layouts(self) -> dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]:
        """By name: what makes of `released` tensors the same for other readers. None, for most."""
        return {}

    def fields(self, height_px: int, width_px: int) -> Sequence[Field]:
        """What a `Denoiser` reads of a target of this size: the text fields, and

        target           RGB; or target_latents: mean and standard deviation as the VAE gave them
        person           share of each latent pixel that is the person, 0 to 1, where it is weighted
        """
        latent = self.latent_shape(height_px, width_px)
        fields = [
            *self.text_fields(),
            Field("target_latents", (2, *latent), torch.float32)
            if self.denoising.cached_latents
            else Field("target", (height_px, width_px, 3), torch.uint8),
        ]
        if self.denoising.person_weight != 1:
            fields.append(Field("person", (1, *latent[1:]), torch.float32))
        return fields

    def latent_shape(self, height_px: int, width_px: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of a picture."""
        return (self.vae.channels, height_px // self.vae.factor, width_px // self.vae.factor)

    def check_size(self, height_px: int, width_px: int) -> None:
        """Raises ValueError, one line, for a size of pictures that the network cannot take."""
        step = self.size_step_px
        if height_px < step or width_px < step or height_px % step or width_px % step:
            raise ValueError(f"{height_px} × {width_px} px: height and width must be multiples of {step}")

    def with_denoising(self, **changed: Any) -> Self:
        """The same base with other settings of denoising; those that it has not are as they are."""
        known = {key: value for key, value in changed.items() if key in type(self.denoising).model_fields}
        return type(self)(self.settings, self.denoising.model_copy(update=known))


class Denoiser(nn.Module, ABC):
    """A base that is built: tokens of identity → each sample's loss. The network's parameters that are
    trained require gradients; all else is frozen.

    schedule    what lies between a picture and noise
    vae         None where latents are read
    """

    vae: nn.Module | None

    def __init__(self, base: Base, schedule: Schedule, frozen_dtype: torch.dtype) -> None:
        super().__init__()
        self.base, self.schedule = base, schedule
        self._scale, self._shift = base.vae.scale_and_shift()
        self.vae = None if base.denoising.cached_latents else cast(base.vae.build(), frozen_dtype)
        if base.denoising.offload_encoders and self.vae is not None:
            keep_on_host(self, "vae")

    @property
    @abstractmethod
    def token_width(self) -> int:
        """Of an identity token."""

    @abstractmethod
    def text(self, fields: Mapping[str, Tensor]) -> Text:
        """The text fields of B samples → what `predict` takes."""

    @abstractmethod
    def keep_text(self, text: Text, keep: Tensor) -> Text:
        """bool [B]: the text where it is kept, elsewhere what the base was trained with as no text."""

    @abstractmethod
    def predict(self, noised: Tensor, times: Tensor, text: Text, identity: Tensor) -> Tensor:
        """[B, C, h, w] at times [B], with identity [B, tokens, token_width] → the prediction [B, C, h, w]."""

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """By path in this module: what a training makes of the base. Holds all that requires gradients."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The network's repeated layers, each of which is compiled by itself."""

    def merged(self) -> dict[str, Tensor]:
        """By path, as `trained` has it where the network is tuned: its weights with what LoRA has learned in
        them. Raises ValueError, one line, for a base that cannot."""
        raise ValueError(f"the base {self.base.name} merges no LoRA")

    @abstractmethod
    def load_released(self, tensors: Mapping[str, Tensor]) -> None:
        """Reads what `Base.released_names` names out of a published file's tensors, strictly.

        Raises LayoutError.
        """

    @contextmanager
    def generating(
        self, text: Text, identity: Tensor, *, identity_scale: float, cache: bool
    ) -> Iterator[None]:
        """Around the predictions of one generation, all of which have this text and identity.

        identity_scale   how much identity counts; 1 in training
        cache            whether what depends on text and identity alone may be computed once
        """
        self.base.check_identity_scale(identity_scale)
        yield

    def forward(
        self, fields: Mapping[str, Tensor], streams: Tensor, identity: Tensor, keep_text: Tensor
    ) -> Tensor:
        """Fields (see `Base.fields`), int64 [B], [B, tokens, token_width], bool [B] → float32 [B]."""
        latents = self._latents(fields, streams)
        shape = latents.shape[1:]
        noise = normal(streams, Purpose.NOISE, shape)
        if self.base.denoising.noise_offset:
            offset = normal(streams, Purpose.NOISE_OFFSET, (shape[0], 1, 1))
            noise = noise + self.base.denoising.noise_offset * offset
        times = self.schedule.times(streams)
        text = self.keep_text(self.text(fields), keep_text)
        predicted = self.predict(self.schedule.noised(latents, noise, times), times, text, identity)
        losses = self._losses(predicted, self.schedule.target(latents, noise, times), fields.get("person"))
        return self.schedule.weighted(losses, times)

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as the VAE gives them → as the network takes them."""
        return (latents - self._shift if self._shift else latents) * self._scale

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents as the network takes them → as the VAE gives them."""
        return latents / self._scale + self._shift if self._shift else latents / self._scale

    def _latents(self, fields: Mapping[str, Tensor], streams: Tensor) -> Tensor:
        """Drawn from what the VAE gave, now or when the dataset was made, and scaled for the network."""
        if self.vae is None:
            mean, std = fields["target_latents"].unbind(1)
        else:
            with lent(self, "vae", streams.device) as vae:
                mean, std = self.base.vae.moments(vae, fields["target"])
        if self.base.draws_latents:
            mean = mean + std * normal(streams, Purpose.LATENT, mean.shape[1:])
        return self.scaled(mean)

    def _losses(self, predicted: Tensor, target: Tensor, person: Tensor | None) -> Tensor:
        error = (predicted.float() - target) ** 2
        if person is None:
            return error.mean(dim=(1, 2, 3))
        weight = (1 + (self.base.denoising.person_weight - 1) * person).expand_as(error)
        return (weight * error).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)
