"""The VAE of Stable Diffusion XL: pictures to latents, and which VAE it is."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.models.local_weights import WeightsError, freeze, from_folder, same_random_weights
from training.models.own_precision import own_precision
from training.models.sdxl import SdxlSettings

_WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers names them
_RANDOM = "random weights"


class VaeIdentity(NamedTuple):
    """Which VAE: the end of its folder's path, sha256 of its weights (hex), and what its latents are
    multiplied by for the UNet."""

    name: str
    sha256: str
    scaling_factor: float


def build_vae(settings: SdxlSettings) -> nn.Module:
    """AutoencoderKL, frozen. Raises WeightsError where the folder cannot be read.

    Random weights are a function of the sizes alone: latents that were made with them can be used again.
    """
    folder = _folder(settings)
    if folder is not None:
        return freeze(from_folder(_load_vae, str(folder)))
    blocks = len(settings.vae_channels)
    with same_random_weights():
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * blocks,
            up_block_types=["UpDecoderBlock2D"] * blocks,
            block_out_channels=settings.vae_channels,
            layers_per_block=settings.vae_layers,
            latent_channels=settings.latent_channels,
            norm_num_groups=min(settings.norm_groups, *settings.vae_channels),
            scaling_factor=settings.latent_scale,
        )
    return freeze(vae)


def vae_identity(settings: SdxlSettings) -> VaeIdentity:
    """Of the VAE that `build_vae` makes. Reads its folder's weights once, and builds nothing of them.

    Random weights are hashed tensor by tensor. Raises WeightsError where the folder cannot be read.
    """
    folder = _folder(settings)
    if folder is None:
        return VaeIdentity(_RANDOM, _sha256_of_tensors(build_vae(settings)), settings.latent_scale)
    try:
        with (folder / _WEIGHTS).open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        return VaeIdentity("/".join(folder.resolve().parts[-2:]), digest, latent_scale(settings))
    except OSError as error:
        raise WeightsError(f"{folder / _WEIGHTS}: {error.strerror}") from None


def latent_scale(settings: SdxlSettings) -> float:
    """What latents are multiplied by for the UNet. Raises WeightsError where the folder does not say."""
    folder = _folder(settings)
    if folder is None:
        return settings.latent_scale
    try:
        return float(json.loads((folder / "config.json").read_text())["scaling_factor"])
    except (OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"{folder}: no config.json with a scaling_factor: not a VAE's folder") from None


def moments_of(vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [B, H, W, 3] → mean and standard deviation of their latents, float32 [B, C, H/8, W/8] each.

    Computed in the VAE's own dtype: SDXL's first VAE overflows in float16, so give it bfloat16, float32
    or its repaired weights. Not scaled for the UNet.
    """
    with torch.no_grad(), own_precision(pixels.device):
        image = pixels.movedim(-1, 1).to(vae.dtype) / 127.5 - 1
        drawn = vae.encode(image).latent_dist
        return drawn.mean.float(), drawn.std.float()


def _load_vae(folder: str, **options: Any) -> nn.Module:
    # diffusers' default asks for accelerate, and warns where it is not installed.
    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False, **options)


def _folder(settings: SdxlSettings) -> Path | None:
    if settings.vae_folder is not None:
        return Path(settings.vae_folder)
    return None if settings.folder is None else Path(settings.folder) / "vae"


def _sha256_of_tensors(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
