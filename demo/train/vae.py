"""Trains the demo's VAE: diffusers' AutoencoderKL, 8 px to a latent, on pieces of rendered photos.

    python -m demo.train.vae --minutes 10 --out /tmp/train/vae

The trainer's small configuration learns in its latents. One with random weights would not do: what it
encodes is nearly noise, and nothing decodes it.
"""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers import __version__ as diffusers_version
from torch.nn.functional import l1_loss

from demo.train.command import Options, autocast, options, write_card
from demo.train.data import TRAINING_SEED, Photo, photos
from demo.train.loop import train
from demo.train.muon import muon
from demo.train.unseen import unseen_photos

HEIGHTS_PX = (128, 256)  # of a photo: from the height that is generated up to closer looks
_PIECE = (96, 64)  # height, width of what a step sees of a photo
_CHANNELS = (16, 32, 64, 64)
LATENT_CHANNELS = 8
_BATCH = 16
_RATE, _MATRIX_RATE = 2e-3, 0.01  # of AdamW and of Muon
_EDGES = 1.0  # weight of the error of differences between neighbours, which keeps edges sharp
_KL = 2e-4  # weight of the mean KL divergence of a latent: enough to keep them smooth
_OUTER = ("conv_in.", "conv_out.", "quant_conv.")
_MEASURED = 200  # photos


def build(seed: int) -> AutoencoderKL:
    """The untrained model. Without attention: it takes pictures of any size alike."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(_CHANNELS),
        up_block_types=["UpDecoderBlock2D"] * len(_CHANNELS),
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def shrunk(collection: list[Photo]) -> list[np.ndarray]:
    """The photos, uint8 [HEIGHTS_PX[1], w, 3]."""
    found = []
    for photo in collection:
        pixels = photo.pixels()
        width = round(pixels.shape[1] * HEIGHTS_PX[1] / pixels.shape[0])
        found.append(cv2.resize(pixels, (width, HEIGHTS_PX[1]), interpolation=cv2.INTER_AREA))
    return found


def batch_of(pictures: list[np.ndarray], step: int, seed: int) -> torch.Tensor:
    """float32 [n, 3, h, w], -1 to 1: pieces of photos at drawn sizes; half are mirrored."""
    random = np.random.default_rng((seed, step))
    pieces = []
    for place in random.integers(len(pictures), size=_BATCH):
        picture = pictures[place]
        height = int(random.integers(*HEIGHTS_PX))
        width = max(round(picture.shape[1] * height / picture.shape[0]), _PIECE[1])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        y, x = (int(random.integers(n + 1)) for n in (height - _PIECE[0], width - _PIECE[1]))
        piece = picture[y : y + _PIECE[0], x : x + _PIECE[1]]
        pieces.append(piece[:, ::-1] if random.random() < 0.5 else piece)
    return _signed(np.stack(pieces))


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of the differences between neighbours, float [n, 3, h, w] each."""
    loss = l1_loss(made, wanted)
    for dim in (-1, -2):
        loss = loss + _EDGES * l1_loss(made.diff(dim=dim), wanted.diff(dim=dim))
    return loss


def export(model: AutoencoderKL, pictures: list[np.ndarray], seed: int, folder: Path) -> None:
    """The folder that from_pretrained reads, in half precision. The latents' scale, by which the UNet sees
    them with a variance of 1, is measured on the pictures."""
    model = model.cpu().float().eval()
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(batch_of(pictures, step, seed + 1)).latent_dist.mean for step in range(8)]
        )
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    temporary = folder.with_suffix(".new")
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary)
    (temporary / "diffusion_pytorch_model.safetensors").chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


@torch.no_grad()
def measure(folder: Path, unseen: list[Photo]) -> dict[str, float]:
    """Mean PSNR (dB) of whole photos encoded and decoded at the height that is generated."""
    model = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    ratios = []
    for photo in unseen[:_MEASURED]:
        pixels = photo.pixels()
        width = 8 * round(pixels.shape[1] * HEIGHTS_PX[0] / pixels.shape[0] / 8)
        pixels = cv2.resize(pixels, (width, HEIGHTS_PX[0]), interpolation=cv2.INTER_AREA)
        wanted = _signed(pixels[None])
        made = model.decode(model.encode(wanted).latent_dist.mean).sample.clamp(-1, 1)
        ratios.append(10 * np.log10(4 / float(((made - wanted) ** 2).mean())))
    return {"psnr_db": float(np.mean(ratios)), "latent_scale": model.config.scaling_factor}


def _signed(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w], -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1).float() / 127.5 - 1


def main(chosen: Options) -> None:
    """Trains, exports vae/ and measures it on unseen worlds."""
    collection = photos(chosen.cache, TRAINING_SEED, chosen.amount, chosen.workers)
    pictures = shrunk(collection)
    model = build(chosen.seed).to(chosen.device)
    optimizer = muon(model, _RATE, _MATRIX_RATE, _OUTER, decay=0.01)

    def loss_of(step: int, share: float) -> tuple[torch.Tensor, dict[str, float]]:
        wanted = batch_of(pictures, step, chosen.seed).to(chosen.device)
        with autocast(chosen):
            drawn = model.encode(wanted).latent_dist
            made = model.decode(drawn.sample()).sample
        kl = drawn.kl().mean() / drawn.mean[0].numel()
        loss = reconstruction_loss(made.float(), wanted)
        return loss + _KL * kl, {"error": float(loss.detach()), "kl": float(kl.detach())}

    averaged, steps = train(chosen.out, chosen.minutes, model, optimizer, loss_of, average=0.995)
    folder = chosen.weights / "vae"
    export(averaged, pictures, chosen.seed, folder)
    write_card(
        folder,
        title="VAE of the trainer's small configuration",
        made_of=f"`AutoencoderKL` of diffusers {diffusers_version}, widths {', '.join(map(str, _CHANNELS))}, "
        f"{LATENT_CHANNELS} channels of latents, without attention",
        licence="ours; the model's code is Apache-2.0",
        chosen=chosen,
        data=f"{len(pictures)} photos of {chosen.amount} worlds",
        steps=steps,
        batch=_BATCH,
        figures=measure(folder, unseen_photos(chosen.cache, chosen.workers)),
    )


if __name__ == "__main__":
    main(options(__doc__, amount=8, amount_means="worlds", minutes=10))
