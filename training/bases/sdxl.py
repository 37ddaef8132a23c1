"""Stable Diffusion XL: identity tokens stand behind the text in the UNet's cross-attention (IP-Adapter)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from training.bases.base import Base, Denoiser, Text
from training.bases.schedules import Schedule, StatedSchedule
from training.bases.sdxl_layout import load_released_unet, released_unet_names
from training.bases.sdxl_parts import (
    TEXT_TOKENS,
    TextEncoders,
    build_unet,
    sdxl_tokeniser,
    sdxl_vae,
    unet_blocks,
)
from training.batch import Field
from training.captions import Tokenise
from training.method_settings import SdxlDenoising, SdxlSettings
from training.models.identity_attention import (
    constant_conditions,
    install_identity_attention,
    set_identity_scale,
)
from training.models.local_weights import cast, keep_on_host, lent, own_precision
from training.models.lora import install_lora, is_lora, merged
from training.models.quantised import quantise_linears


class Sdxl(Base):
    """The base."""

    name, kind, denoising_kind = "sdxl", SdxlSettings, SdxlDenoising
    scales_identity = lora_beside = True

    def __init__(self, settings: SdxlSettings, denoising: SdxlDenoising) -> None:
        super().__init__(settings, denoising)
        self.vae = sdxl_vae(settings)
        self.schedule()

    @property
    def size_step_px(self) -> int:
        """The UNet halves its latents by each of its blocks but the last."""
        return int(self.vae.factor * 2 ** (unet_blocks(self.settings) - 1))

    @property
    def token_width(self) -> int | None:
        """Of a text token."""
        return self.settings.token_width if self.settings.folder is None else None

    def tokeniser(self) -> Tokenise:
        """SDXL's two, or hashed words for text encoders with random weights."""
        return sdxl_tokeniser(self.settings)

    def text_fields(self) -> list[Field]:
        """Both tokenizers' ids, and the sizes of SDXL's micro-conditioning (its `time_ids`)."""
        return [
            Field("caption_ids", (2, TEXT_TOKENS), torch.int64),
            Field("target_cut", (6,), torch.float32),
        ]

    def schedule(self) -> Schedule:
        """That of the folder's scheduler, or as it is asked for. Raises ValueError, one line, for one that
        the UNet does not know and is not trained to."""
        folder, asked = self.settings.folder, self.denoising
        stated = StatedSchedule() if folder is None else StatedSchedule.of_folder(Path(folder))
        wanted = stated.changed(asked.prediction, asked.zero_snr, asked.flow_shift)
        if folder is not None and wanted != stated and not asked.tune_unet:
            raise ValueError(
                f"denoising: {wanted.differences(stated)} ({folder}): a frozen UNet learns no other; "
                "tune_unet, or leave it out"
            )
        return wanted.build(asked.min_snr)

    def build(self, frozen_dtype: torch.dtype, tokens: int) -> "SdxlDenoiser":
        """The UNet with identity attention, text encoders and VAE."""
        return SdxlDenoiser(self, frozen_dtype, tokens)

    def released_names(self, paths: Iterable[str]) -> dict[str, str]:
        """ip_adapter.N for identity attention, unet for what is tuned."""
        return released_unet_names(paths)


class SdxlDenoiser(Denoiser):
    """UNet with identity attention, text encoders and VAE."""

    def __init__(self, base: Sdxl, frozen_dtype: torch.dtype, tokens: int) -> None:
        super().__init__(base, base.schedule(), frozen_dtype)
        self._tuned = base.denoising.tune_unet
        denoising = base.denoising
        self.texts = cast(TextEncoders(base.settings), frozen_dtype)
        if denoising.offload_encoders:
            keep_on_host(self, "texts")
        self.unet = build_unet(base.settings)
        if self._tuned:
            self.unet.requires_grad_(True)
        else:
            cast(self.unet, frozen_dtype)
        if denoising.checkpoint_activations:
            self.unet.enable_gradient_checkpointing()
        install_identity_attention(self.unet, tokens)
        if denoising.quantise is not None:
            quantise_linears(self.unet, denoising.quantise)
        if denoising.lora is not None:
            install_lora(self.unet, denoising.lora)

    @property
    def token_width(self) -> int:
        """That of the context of the UNet's cross-attention."""
        return int(self.unet.config.cross_attention_dim)

    def text(self, fields: Mapping[str, Tensor]) -> Text:
        """Tokens [B, 77, width], pooled [B, projection] and sizes [B, 6]."""
        ids = fields["caption_ids"]
        with lent(self, "texts", ids.device) as texts:
            return (*texts(ids), fields["target_cut"])

    def keep_text(self, text: Text, keep: Tensor) -> Text:
        """Text that is left out is zero, tokens and pooled vector: so SDXL itself was trained."""
        tokens, pooled, sizes = text
        return tokens * keep[:, None, None], pooled * keep[:, None], sizes

    def predict(self, noised: Tensor, times: Tensor, text: Text, identity: Tensor) -> Tensor:
        """What the schedule asks for; times as it gives them."""
        tokens, pooled, sizes = text
        dtype = self.unet.conv_in.weight.dtype
        with own_precision(noised.device, own=not self._tuned):
            return self.unet(
                noised.to(dtype),
                times,
                encoder_hidden_states=self._context(tokens, identity),
                added_cond_kwargs={"text_embeds": pooled.to(dtype), "time_ids": sizes},
            ).sample

    def trained(self) -> dict[str, nn.Parameter]:
        """The identity attention, and LoRA or the UNet where it is tuned."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith("unet.") and (self._tuned or ".processor." in name or is_lora(name))
        }

    def merged(self) -> dict[str, Tensor]:
        """All of the UNet but its identity attention."""
        with merged(self.unet):
            named = [(f"unet.{name}", p.detach()) for name, p in self.unet.named_parameters()]
            return {name: tensor for name, tensor in named if ".processor." not in name}

    def blocks(self) -> list[nn.Module]:
        """The UNet's transformer blocks."""
        return [
            child
            for name, child in self.unet.named_modules()
            if name.rsplit(".", 2)[-2:-1] == ["transformer_blocks"]
        ]

    def load_released(self, tensors: Mapping[str, Tensor]) -> None:
        """ip_adapter by place, unet where it is tuned."""
        load_released_unet(self.unet, tensors)

    @contextmanager
    def generating(
        self, text: Text, identity: Tensor, *, identity_scale: float, cache: bool
    ) -> Iterator[None]:
        """Keys and values of text and identity are computed once; the result is the same."""
        set_identity_scale(self.unet, identity_scale)
        try:
            if cache:
                with constant_conditions(self.unet, self._context(text[0], identity)):
                    yield
            else:
                yield
        finally:
            set_identity_scale(self.unet, 1.0)

    def _context(self, tokens: Tensor, identity: Tensor) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        return torch.cat([tokens.to(dtype), identity.to(dtype)], dim=1)
