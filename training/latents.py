"""Latents in a dataset: what one member holds, and what dataset.json says of all of them.

`KEY.NNN.latent` is a safetensors file of what the VAE gives for the photo, cut to its size:

    mean     float16 or float32 [C, height / factor, width / factor], as the VAE gives it
    std      the same of the standard deviation; a dataset of means alone lacks it
    source   float64 [4]: x0, y0, x1, y1, px of the upright photo: the part that was cut out of it

With both moments the trainer draws the latent that it would have drawn from the photo.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shards.reading.buckets import Size
from training.bases.vae import VaeIdentity
from training.settings import Settings

MEMBER = "latent"
STATED = "latents"  # key of dataset.json

Box = tuple[float, float, float, float]
_Size = Annotated[tuple[int, int], Field(strict=False)]


class LatentStatement(Settings):
    """`latents` of dataset.json: which VAE made them of what, and how they are stored."""

    vae: str
    sha256: str = Field(description="of the VAE's weights, hex")
    scaling_factor: float = Field(gt=0, description="that the trainer multiplies by for the network")
    shift: float = Field(0.0, description="that it takes off before")
    factor: int = Field(8, ge=1, description="px of a picture to one of its latent, along each side")
    channels: int = Field(ge=1)
    sizes: Annotated[tuple[_Size, ...], Field(strict=False, min_length=1)] = Field(
        description="height, width, px; a photo has the one of the nearest proportions, and fills it"
    )
    precision: Literal["bf16", "fp32"] = Field("fp32", description="that the VAE computed in")
    dtype: Literal["float16", "float32"] = Field("float16", description="of the tensors stored")
    moments: Literal["mean and std", "mean"] = "mean and std"

    def stated(self) -> dict[str, Any]:
        """As dataset.json has it. What SDXL's VAE has is left out, as datasets of before are without it: work
        that was begun goes on, and old latents are merged with new ones."""
        usual = {"shift": 0.0, "factor": 8}
        return {
            name: value for name, value in self.model_dump(mode="json").items() if usual.get(name) != value
        }

    def member_bytes(self, size: Size) -> int:
        """Of one latent: the same for all of one size."""
        shape = (self.channels, size[0] // self.factor, size[1] // self.factor)
        mean = np.zeros(shape, self.dtype)
        return len(pack_latent(self, mean, mean, (0, 0, 0, 0)))

    def check_vae(self, vae: VaeIdentity, folder: str) -> None:
        """Raises ValueError, one line, unless they are latents of this VAE."""
        stated = VaeIdentity(self.vae, self.sha256, self.scaling_factor, self.shift)
        if stated[1:] != vae[1:]:
            theirs, ours = (f"{one.name} ({one.sha256[:12]}, {_scaling(one)})" for one in (stated, vae))
            raise ValueError(
                f"{folder}: its latents are of the VAE {theirs}, this run's is {ours}: precompute them "
                "anew, or encode photos with data.latents=never"
            )


def statement_of(about: Mapping[str, Any], folder: str) -> LatentStatement | None:
    """What a dataset.json says of latents; None where it has none. Raises ValueError, one line."""
    if STATED not in about:
        return None
    try:
        return LatentStatement.model_validate(about[STATED])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in (STATED, *fault["loc"]))
        raise ValueError(f"{folder}/dataset.json: {where}: {fault['msg']}") from None


def pack_latent(statement: LatentStatement, mean: np.ndarray, std: np.ndarray, source: Box) -> bytes:
    """A member. float32 [C, h, w] each. Raises ValueError where a number does not fit its dtype."""
    named = {"mean": mean, "std": std} if statement.moments == "mean and std" else {"mean": mean}
    with np.errstate(over="ignore"):
        tensors = {name: np.ascontiguousarray(array, statement.dtype) for name, array in named.items()}
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise ValueError(f"its latent is not finite in {statement.dtype}")
    return save({**tensors, "source": np.array(source, np.float64)})


def unpack_latent(data: bytes, moments: np.ndarray) -> Box:
    """Fills float32 [2, C, h, w] with mean and standard deviation (0 where there is none); returns the part
    of the photo that they are of. Raises ValueError where the member is none or of another size."""
    try:
        tensors = load(data)
        mean, source = tensors["mean"], tensors["source"]
        moments[0] = mean
        moments[1] = tensors.get("std", 0)
        x0, y0, x1, y1 = source.tolist()
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"broken latent: {error}") from None
    if mean.shape != moments.shape[1:]:
        raise ValueError(f"the latent is {list(mean.shape)}, not {list(moments.shape[1:])}")
    return x0, y0, x1, y1


def _scaling(vae: VaeIdentity) -> str:
    shift = f", shift {vae.shift:g}" if vae.shift else ""
    return f"scale {vae.scaling_factor:g}{shift}"


def sizes_text(sizes: Sequence[Size]) -> str:
    """For people: 704×1408 and so on."""
    return ", ".join(f"{height}×{width}" for height, width in sizes)
