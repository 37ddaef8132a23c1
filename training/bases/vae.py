"""VAEs: pictures to latents and back, and which VAE it is."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from training.models.local_weights import (
    DIFFUSERS,
    WeightsError,
    freeze,
    from_folder,
    own_precision,
    same_random_weights,
)

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers names them
_RANDOM = "random weights"
_CLASSES = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderKLFlux2)}
_PACK = 2  # latents to a packed one, along each side


class VaeIdentity(NamedTuple):
    """Which VAE: the end of its folder's path, sha256 of its weights (hex), and what makes its latents those
    of the network: (latent − shift) · scaling_factor."""

    name: str
    sha256: str
    scaling_factor: float
    shift: float = 0.0


class Vae(Protocol):
    """Where a base's VAE comes from, and what is done with it once it is built."""

    @property
    def factor(self) -> int:
        """px of a picture to one of its latent, along each side."""
        ...

    @property
    def channels(self) -> int:
        """Of a latent."""
        ...

    def identity(self) -> VaeIdentity:
        """Which one `build` makes, without building where it has a folder. Raises WeightsError."""
        ...

    def build(self) -> nn.Module:
        """The VAE, frozen, with an attribute `dtype`. Raises WeightsError where it cannot be read."""
        ...

    def scale_and_shift(self) -> tuple[float, float]:
        """What makes its latents those of the network. Raises WeightsError where a folder does not say."""
        ...

    def moments(self, vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, H, W, 3] → mean and standard deviation of their latents, float32
        [B, C, H / factor, W / factor] each, as the VAE gives them."""
        ...

    def pictures(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Latents as the VAE gives them, [B, C, h, w] → RGB, uint8 [B, factor · h, factor · w, 3]."""
        ...


def vae_of_folder(folder: Path) -> "DiffusersVae":
    """The VAE of a folder by the class that its config.json states. Raises WeightsError."""
    packed = _config(folder).get("_class_name") == AutoencoderKLFlux2.__name__
    return (PackedVae if packed else DiffusersVae).of_folder(folder)


class DiffusersVae:
    """diffusers' AutoencoderKL, or AutoencoderKLFlux2.

    folder   that holds one; None: random weights, which are a function of the sizes alone, so that latents
             that were made with them can be used again
    sizes    arguments of its class; a folder's own config.json counts where there is one

    Raises WeightsError for a config.json that is none of a VAE.
    """

    def __init__(self, folder: Path | None, sizes: Mapping[str, Any]) -> None:
        self._folder = folder
        stated = folder is not None and (folder / _CONFIG).is_file()
        self._sizes = _config(folder) if folder and stated else dict(sizes)

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """With the sizes that its config.json states. Raises WeightsError."""
        return cls(folder, _config(folder))

    @property
    def factor(self) -> int:
        """px of a picture to one of its latent: each block but the last halves a side."""
        return 2 ** (len(self._sizes["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self._sizes["latent_channels"])

    def identity(self) -> VaeIdentity:
        """Reads the folder's weights once, and builds nothing of them; random weights are hashed tensor by
        tensor. Raises WeightsError where the folder cannot be read."""
        scale, shift = self.scale_and_shift()
        if self._folder is None:
            return VaeIdentity(_RANDOM, _sha256_of_tensors(self.build()), scale, shift)
        try:
            with (self._folder / _WEIGHTS).open("rb") as weights:
                digest = hashlib.file_digest(weights, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"{self._folder / _WEIGHTS}: {error.strerror}") from None
        return VaeIdentity("/".join(self._folder.resolve().parts[-2:]), digest, scale, shift)

    def scale_and_shift(self) -> tuple[float, float]:
        """1 and 0 where it states none, as AutoencoderKLFlux2. Raises WeightsError where the folder does not
        say."""
        stated = self._sizes if self._folder is None else _config(self._folder)
        return float(stated.get("scaling_factor", 1.0)), float(stated.get("shift_factor") or 0.0)

    def build(self) -> nn.Module:
        """Raises WeightsError where the folder cannot be read."""
        kind = self._class()
        if self._folder is not None:
            return freeze(from_folder(kind.from_pretrained, str(self._folder), **DIFFUSERS))
        blocks = len(self._sizes["block_out_channels"])
        with same_random_weights():
            vae = kind(
                down_block_types=["DownEncoderBlock2D"] * blocks,
                up_block_types=["UpDecoderBlock2D"] * blocks,
                **self._sizes,
            )
        return freeze(vae)

    def _class(self) -> Any:
        return AutoencoderKL

    def moments(self, vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Computed in the VAE's own dtype: SDXL's first VAE overflows in float16, so give it bfloat16,
        float32 or its repaired weights. Not scaled for the network."""
        with torch.no_grad(), own_precision(pixels.device):
            image = pixels.movedim(-1, 1).to(vae.dtype) / 127.5 - 1
            drawn = vae.encode(image).latent_dist
            return drawn.mean.float(), drawn.std.float()

    @torch.no_grad()
    def pictures(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """One at a time: decoding takes the most memory of all. In the VAE's own dtype."""
        made = []
        with own_precision(latents.device):
            for one in latents.split(1):
                image = vae.decode(one.to(vae.dtype)).sample
                made.append(((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
        return torch.cat(made).movedim(1, -1)


class PackedVae(DiffusersVae):
    """A VAE whose latents lie in squares of 2 × 2, one behind the other, as FLUX.2 takes them: a channel
    c of the VAE is the channels 4c to 4c + 3. Random weights are those of AutoencoderKLFlux2."""

    @property
    def factor(self) -> int:
        """px of a picture to one of its packed latent."""
        return _PACK * super().factor

    @property
    def channels(self) -> int:
        """Of a packed latent."""
        return _PACK**2 * super().channels

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """float32 [channels] each: what is taken off a packed latent, and what it is then divided by, for the
        network: mean and deviation of the batch norm, or shift and 1 / scale of an AutoencoderKL.

        Raises WeightsError where the folder cannot be read.
        """
        scale, shift = self.scale_and_shift()
        mean, deviation = torch.full((self.channels,), shift), torch.full((self.channels,), 1 / scale)
        if self._class() is not AutoencoderKLFlux2:
            return mean, deviation
        eps = float(self._sizes.get("batch_norm_eps", 1e-4))
        if self._folder is None:  # as a batch norm begins
            return mean, (deviation + eps).sqrt()
        file = self._folder / _WEIGHTS
        try:
            with safe_open(file, "pt") as tensors:
                found, variance = (
                    tensors.get_tensor(f"bn.running_{name}").float() for name in ("mean", "var")
                )
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file}: {str(error).splitlines()[0]}") from None
        return found, (variance + eps).sqrt()

    def moments(self, vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Packed; not normalised for the network."""
        mean, std = super().moments(vae, pixels)
        return nn.functional.pixel_unshuffle(mean, _PACK), nn.functional.pixel_unshuffle(std, _PACK)

    def pictures(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Of packed latents, before they are normalised."""
        return super().pictures(vae, nn.functional.pixel_shuffle(latents, _PACK))

    def _class(self) -> Any:
        name = self._sizes.get("_class_name", AutoencoderKLFlux2.__name__)
        if name not in _CLASSES:
            raise WeightsError(f"{self._folder}: a {name}; known are {', '.join(_CLASSES)}")
        return _CLASSES[name]


def _config(folder: Path) -> dict[str, Any]:
    try:
        stated = json.loads((folder / _CONFIG).read_text())
        if stated.get("_class_name") != AutoencoderKLFlux2.__name__:
            float(stated["scaling_factor"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{folder}: no config.json with a scaling_factor: not a VAE's folder") from None
    # What diffusers' AutoencoderKL has where its config.json does not say.
    defaults = {"block_out_channels": (64,), "latent_channels": 4}
    if stated.get("_class_name") == AutoencoderKLFlux2.__name__:
        defaults = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 32}
    return defaults | stated


def _sha256_of_tensors(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
