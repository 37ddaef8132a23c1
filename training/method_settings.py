"""What stands under `method` in a config: settings of recipes, of bases, and of the models in them, without
torch: so a wrong word is answered at once."""

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model, field_validator, model_validator

from shards.format.contents import REGION_NAMES
from training.settings import Settings, Sizes


def _found(folder: str) -> str:
    """Where the weights are: as it is written, else under the folder's own name in $PERSONA_MODELS."""
    models = os.environ.get("PERSONA_MODELS")
    if not models or Path(folder).exists():
        return folder
    there = Path(models).expanduser() / Path(folder).name
    return str(there) if there.is_dir() else folder


WeightsFolder = Annotated[str, AfterValidator(_found)]
"""Of weights: one that is not where a config says is looked up in $PERSONA_MODELS, as those of pipelines."""


class DropoutSettings(Settings):
    """Shares of samples. Identity, text and both exclude one another; regions are left out besides.

    The paper does not state its rates: these are ours.
    """

    identity: float = Field(0.05, ge=0, le=1, description="without identity")
    text: float = Field(0.05, ge=0, le=1, description="without text")
    both: float = Field(0.05, ge=0, le=1, description="without either")
    region: float = Field(0.15, ge=0, le=1, description="of each region")

    @model_validator(mode="after")
    def _sum_fits(self) -> "DropoutSettings":
        if self.identity + self.text + self.both > 1:
            raise ValueError("identity, text and both are more than 1 together")
        return self


class DinoSettings(Settings):
    """DINOv2; the defaults are ViT-g/14. With a folder, the sizes are those of its config."""

    folder: WeightsFolder | None = Field(
        None,
        description="a local transformers folder; None: random weights",
        json_schema_extra={"hub": "facebook/dinov2-giant"},
    )
    width: int = Field(1536, ge=1, description="of a feature")
    depth: int = Field(40, ge=1, description="layers")
    heads: int = Field(24, ge=1, description="of attention")
    mlp_ratio: int = Field(4, ge=1, description="width of an MLP to that of a feature")
    swiglu: bool = Field(True, description="MLPs are SwiGLU, as ViT-g/14 has them")
    patch_px: int = Field(14, ge=1, description="side of a patch")
    trained_px: int = Field(518, ge=1, description="side of the pictures that its positions are made for")
    crop_px: int = Field(224, ge=1, description="side of the crops that it is given")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DinoSettings":
        if self.crop_px % self.patch_px or self.trained_px % self.patch_px:
            raise ValueError(f"crop_px and trained_px must be multiples of patch_px ({self.patch_px})")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    @property
    def patches(self) -> int:
        """Features of one crop."""
        return (self.crop_px // self.patch_px) ** 2


class DecoderSettings(Settings):
    """Sizes; the defaults are those of the released model (522.9M parameters without `pos_embed`)."""

    regions: int = Field(5, ge=1, le=64, description="of a body; there are five")
    queries: int = Field(256, ge=1, description="tokens of one region")
    width: int = Field(2048, ge=1, description="of a token; the UNet's cross-attention width")
    feature_width: int = Field(1536, ge=1, description="of an image feature")
    depth: int = Field(8, ge=1, description="layers")
    heads: int = Field(8, ge=1, description="of attention")
    mlp_width: int = Field(8192, ge=1, description="inside of an MLP")

    @model_validator(mode="after")
    def _heads_fit(self) -> "DecoderSettings":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    @property
    def tokens(self) -> int:
        """Identity tokens of one sample."""
        return self.regions * self.queries


class VisualPersonaSettings(Settings):
    """All that the method depends on; the sizes default to the released model's."""

    stage: Literal["shared_queries", "region_queries"] = Field(
        "region_queries", description="shared_queries: the first stage; region_queries: the second"
    )
    dino: DinoSettings = DinoSettings()
    decoder: DecoderSettings = DecoderSettings()
    dropout: DropoutSettings = DropoutSettings()
    reconstruction: float = Field(
        0.0, ge=0, le=1, description="share of samples at the start whose reference is the target"
    )
    reconstruction_until: float = Field(
        0.5, gt=0, le=1, description="part of the training after which that share is zero"
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "VisualPersonaSettings":
        if self.decoder.regions != len(REGION_NAMES):
            raise ValueError(f"decoder.regions must be {len(REGION_NAMES)}: {', '.join(REGION_NAMES)}")
        if self.dino.folder is None and self.decoder.feature_width != self.dino.width:
            raise ValueError(
                f"decoder.feature_width {self.decoder.feature_width} is not dino.width ({self.dino.width})"
            )
        return self


class ClipVisionSettings(Settings):
    """CLIP's image encoder; the defaults are ViT-H/14. With a folder, the sizes are those of its config."""

    folder: WeightsFolder | None = Field(
        None, description="a local transformers folder; None: random weights"
    )
    width: int = Field(1280, ge=1, description="of a feature")
    depth: int = Field(32, ge=1, description="layers")
    heads: int = Field(16, ge=1, description="of attention")
    mlp_width: int = Field(5120, ge=1, description="inside of an MLP")
    activation: str = Field("gelu", description="of MLPs, as transformers names it")
    projection: int = Field(1024, ge=1, description="width of a picture's embedding")
    patch_px: int = Field(14, ge=1, description="side of a patch")
    crop_px: int = Field(224, ge=1, description="side of the picture that it is given")


class IpAdapterSettings(Settings):
    """All that the method depends on. `dropout.region` means nothing here."""

    clip: ClipVisionSettings = ClipVisionSettings()
    tokens: int = Field(4, ge=1, description="of identity")
    reconstruction: float = Field(
        1.0, ge=0, le=1, description="share of samples that are their own reference"
    )
    dropout: DropoutSettings = DropoutSettings(region=0.0)


class LoraSettings(Settings):
    """Which layers learn besides, and how much they can."""

    rank: int = Field(16, ge=1, description="of a layer's change")
    alpha: float | None = Field(None, gt=0, description="a change counts alpha / rank; none: as rank")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"),
        min_length=1,
        strict=False,
        description="ends of the paths of linear layers; ff.net.0.proj and ff.net.2 are the MLPs",
    )
    dora: bool = Field(False, description="sizes of a layer's rows are learned by themselves (DoRA)")

    @property
    def scale(self) -> float:
        """s."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class DenoisingSettings(Settings):
    """The loss, and what all bases know of training; the defaults are the plain mean squared error."""

    noise_offset: float = Field(0.0, ge=0, description="noise of a whole channel besides; 0.05 is usual")
    person_weight: float = Field(1.0, ge=0, description="of an error on the person, background being 1")
    cached_latents: bool = Field(False, description="read target_latents; there is no VAE then")
    checkpoint_activations: bool = Field(False, description="compute the network's activations twice")
    offload_encoders: bool = Field(
        False,
        description="encoders of text and pictures lie in host memory, and on the device while they work",
    )


Prediction = Literal["epsilon", "v", "flow"]


class SdxlDenoising(DenoisingSettings):
    """What is SDXL's besides."""

    prediction: Prediction | None = Field(
        None, description="of the UNet; none: as the folder's scheduler states, else epsilon"
    )
    zero_snr: bool | None = Field(
        None, description="no signal at the last time (arXiv 2305.08891); none: as the scheduler states"
    )
    flow_shift: float | None = Field(
        None, gt=0, description="of σ towards noise, with flow; none: as the scheduler states, else 3"
    )
    min_snr: float | None = Field(None, gt=0, description="γ of Min-SNR weighting (arXiv 2303.09556); 5")
    tune_unet: bool = Field(False, description="train the UNet too")
    lora: LoraSettings | None = Field(None, description="train LoRA on the frozen UNet too")
    quantise: Literal["int8", "fp8", "nf4"] | None = Field(
        None, description="weights of the frozen UNet's linear layers, by torchao; none: as precision says"
    )

    @model_validator(mode="after")
    def _unet_is_frozen(self) -> "SdxlDenoising":
        if self.tune_unet and (self.lora is not None or self.quantise is not None):
            named = "lora" if self.lora is not None else "quantise"
            raise ValueError(
                f"tune_unet trains all of the UNet, and {named} is for a frozen one: one of them"
            )
        return self


class TextSettings(Settings):
    """One CLIP text encoder. Defaults: CLIP-L."""

    width: int = Field(768, ge=1, description="of a token")
    depth: int = Field(12, ge=1, description="layers")
    heads: int = Field(12, ge=1, description="of attention")
    mlp_width: int = Field(3072, ge=1, description="inside of an MLP")
    activation: str = Field("quick_gelu", description="of MLPs, as transformers names it")
    projection: int = Field(768, ge=1, description="width of the pooled vector")
    vocabulary: int = Field(49408, ge=3, description="ids of tokens are below it")


class SdxlSettings(Settings):
    """Sizes; the defaults are SDXL base 1.0. With a folder, the sizes are those of its configs."""

    folder: WeightsFolder | None = Field(
        None,
        description="a local diffusers folder; None: random weights",
        json_schema_extra={"hub": "stabilityai/stable-diffusion-xl-base-1.0"},
    )
    vae_folder: WeightsFolder | None = Field(
        None,
        description="another VAE, such as madebyollin/sdxl-vae-fp16-fix",
        json_schema_extra={"hub": "madebyollin/sdxl-vae-fp16-fix"},
    )
    channels: Sizes = Field((320, 640, 1280), description="of the UNet's blocks")
    transformer_depths: Sizes = Field(
        (0, 2, 10), description="layers of the transformers in each block; 0: convolutions only"
    )
    head_width: int = Field(64, ge=1, description="channels of one head of attention")
    layers_per_block: int = Field(2, ge=1, description="of the UNet")
    norm_groups: int = Field(32, ge=1, description="of group normalisation")
    time_id_width: int = Field(256, ge=1, description="embedding of one of the six size numbers")
    text: TextSettings = TextSettings()
    text_2: TextSettings = TextSettings(
        width=1280, depth=32, heads=20, mlp_width=5120, activation="gelu", projection=1280
    )
    vae_channels: Sizes = Field((128, 256, 512, 512), description="of the VAE's four blocks")
    vae_layers: int = Field(2, ge=1, description="of each block of the VAE")
    latent_channels: int = Field(4, ge=1, description="of a latent")
    latent_scale: float = Field(0.13025, gt=0, description="latents are multiplied by it for the UNet")

    @model_validator(mode="after")
    def _blocks_fit(self) -> "SdxlSettings":
        if len(self.channels) != len(self.transformer_depths):
            raise ValueError("channels and transformer_depths must have one number for each block")
        if self.transformer_depths[-1] == 0:
            raise ValueError("the last block's transformer_depths must not be 0: the middle block copies it")
        if len(self.vae_channels) != 4:
            raise ValueError("vae_channels must be four numbers: the VAE makes 1 px of 8")
        return self

    @property
    def token_width(self) -> int:
        """Of a text token, and so of an identity token."""
        return self.text.width + self.text_2.width


_FLUX2_ATTENTION = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "to_qkv_mlp_proj", "attn.to_out",
)  # fmt: skip


class Flux2Lora(LoraSettings):
    """LoRA on what attends; ff.linear_in, ff.linear_out, ff_context.linear_in and ff_context.linear_out are
    the MLPs of the double blocks, those of the single ones lie within to_qkv_mlp_proj and attn.to_out."""

    rank: int = Field(128, ge=1, description="of a layer's change")
    targets: tuple[str, ...] = Field(
        _FLUX2_ATTENTION, min_length=1, strict=False, description="ends of the paths of linear layers"
    )


class Flux2Denoising(DenoisingSettings):
    """What is FLUX.2's besides."""

    flow_shift: float = Field(
        3.0, gt=0, description="of σ towards noise in training; 3 is usual for 512 to 1024 px"
    )
    lora: Flux2Lora | None = Field(Flux2Lora(), description="trained besides the transformer; none: none is")
    references_apart: bool = Field(
        False,
        description="references attend to themselves alone, at time 0, so a generation computes them once; "
        "the base was trained with all attending to all",
    )
    tune_transformer: bool = Field(False, description="train the transformer itself; lora must be none")


class Qwen3Settings(Settings):
    """The text encoder. Defaults: Qwen3-4B, as far as FLUX.2 klein reads it."""

    width: int = Field(2560, ge=1, description="of a token")
    heads: int = Field(32, ge=1, description="of attention")
    key_heads: int = Field(8, ge=1, description="that keys and values have")
    head_width: int = Field(128, ge=2, multiple_of=2, description="of one head")
    mlp_width: int = Field(9728, ge=1, description="inside of an MLP")
    vocabulary: int = Field(151936, ge=4, description="ids of tokens are below it")


class Flux2Settings(Settings):
    """Sizes; the defaults are FLUX.2-klein-base-4B. With a folder, the sizes are those of its configs."""

    folder: WeightsFolder | None = Field(
        None,
        description="a local diffusers folder; None: random weights",
        json_schema_extra={"hub": "black-forest-labs/FLUX.2-klein-base-4B"},
    )
    vae_folder: WeightsFolder | None = Field(
        None, description="another VAE; an AutoencoderKL's latents are packed and scaled as it states"
    )
    double_blocks: int = Field(5, ge=1, description="with weights of their own for text and pictures")
    single_blocks: int = Field(20, ge=1, description="with the same weights for all tokens")
    heads: int = Field(24, ge=1, description="of attention")
    head_width: int = Field(128, ge=8, description="of one head")
    rope_widths: Sizes = Field(
        (32, 32, 32, 32), description="of a head that turn with picture, row, column and place in the text"
    )
    rope_theta: int = Field(2000, ge=1, description="base of the turning's frequencies")
    mlp_ratio: float = Field(3.0, gt=0, description="inside of an MLP to outside")
    time_width: int = Field(256, ge=2, description="of a time's embedding")
    text: Qwen3Settings = Qwen3Settings()
    text_layers: Sizes = Field(
        (9, 18, 27), min_length=1, description="whose outputs stand side by side; deeper ones are not run"
    )
    text_tokens: int = Field(512, ge=4, description="of a caption, padding included; it is not masked")
    vae_channels: Sizes = Field((128, 256, 512, 512), description="of the VAE's blocks")
    vae_layers: int = Field(2, ge=1, description="of each block of the VAE")
    vae_norm_groups: int = Field(32, ge=1, description="of the VAE's group normalisation")
    latent_channels: int = Field(32, ge=1, description="of the VAE; a token has four times as many")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Flux2Settings":
        if len(self.rope_widths) != 4 or sum(self.rope_widths) != self.head_width:
            raise ValueError(f"rope_widths must be four numbers, together head_width ({self.head_width})")
        if min(self.text_layers) < 1:
            raise ValueError("text_layers count from 1")
        return self

    @property
    def text_width(self) -> int:
        """Of a text token."""
        return len(self.text_layers) * self.text.width


CAPTION = "{caption}"


class Flux2ReferenceSettings(Settings):
    """All that the method depends on. `dropout.region` is that of a part: head, torso, legs, shoes."""

    references: Literal["body", "parts", "both"] = Field(
        "both", description="body: the whole person; parts: head, torso, legs, shoes; both: in this order"
    )
    body_px: Sizes = Field(
        (512, 512), min_length=2, max_length=2, description="height and width that the whole person fits into"
    )
    part_px: int = Field(256, ge=16, description="side of the square that a part lies in, black around it")
    whole_photo: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of samples that see the whole photo in place of the person cut out",
    )
    prompt: str = Field(
        "The person in image 1. {caption}", description="what the text encoder reads; {caption} stands for it"
    )
    guidance_keeps_references: bool = Field(
        True, description="guidance leads away from no text alone, as the base is used; else from nobody too"
    )
    dropout: DropoutSettings = DropoutSettings(text=0.1)

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if CAPTION not in prompt:
            raise ValueError(f"must hold {CAPTION}")
        return prompt


# Recipes and bases by name whose settings are here. Others may keep theirs in their own files: a wrong word
# among them is then answered when that file, and torch with it, is imported.
RECIPE_SETTINGS: dict[str, type[Settings]] = {
    "visual_persona": VisualPersonaSettings,
    "flux2_reference": Flux2ReferenceSettings,
    "ip_adapter": IpAdapterSettings,
}
BASE_SETTINGS: dict[str, tuple[type[Settings], type[DenoisingSettings]]] = {
    "sdxl": (SdxlSettings, SdxlDenoising),
    "flux2": (Flux2Settings, Flux2Denoising),
}


@cache
def method_settings(
    recipe: type[Settings], base: str, base_settings: type[Settings], denoising: type[DenoisingSettings]
) -> type[Settings]:
    """The keys of `method` for a recipe's settings on a base's, which stand under the base's name."""
    parts: dict[str, Any] = {
        base: (base_settings, Field(default_factory=base_settings)),
        "denoising": (denoising, Field(default_factory=denoising)),
    }
    return create_model(recipe.__name__, __base__=recipe, **parts)
