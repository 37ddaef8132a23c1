"""Batched passes through the tower for pictures of one size, without the ragged machinery of serving."""

import functools

import numpy as np
import torch
from torch.nn import functional as nnf
from transformers import Qwen2VLForConditionalGeneration

from demo.vlm.architecture import MERGE, PATCH_PX, PIXEL_MEAN, PIXEL_STD, TOKEN_PX


def patches_of(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] pictures -> float32 [B, P, 3 * 14 * 14] normalised patches in the model's order.

    H and W are multiples of 28. The order is the processor's: the four patches of a token lie together.
    """
    batch, height, width, _ = pictures.shape
    values = pictures.float().div_(255.0)
    values = (values - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
    rows, columns = height // TOKEN_PX, width // TOKEN_PX
    values = values.view(batch, rows, MERGE, PATCH_PX, columns, MERGE, PATCH_PX, 3)
    return values.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, rows * columns * MERGE**2, -1)


@functools.lru_cache
def _vision_angles(rows: int, columns: int, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine float32 [P, head_dim] of the axial rotary embedding, in the order of `patches_of`."""
    y, x = np.mgrid[: rows * MERGE, : columns * MERGE]
    places = np.stack([y, x], -1).reshape(rows, MERGE, columns, MERGE, 2).transpose(0, 2, 1, 3, 4)
    positions = torch.from_numpy(places.reshape(-1, 2).astype(np.float32))
    spatial = head_dim // 2
    frequencies = 1.0 / (theta ** (torch.arange(0, spatial, 2, dtype=torch.float32) / spatial))
    angles = (positions[:, :, None] * frequencies).flatten(1)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def _rotate(values: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = values.chunk(2, -1)
    return values * cosine + torch.cat([-second, first], -1) * sine


def see(model: Qwen2VLForConditionalGeneration, pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] pictures of one size -> [B, T, text dim] merged tokens, row by row.

    The same numbers as `model.model.visual`; a batch of equal sizes needs no split by picture.
    """
    tower = model.model.visual
    batch = pictures.shape[0]
    rows, columns = pictures.shape[1] // TOKEN_PX, pictures.shape[2] // TOKEN_PX
    heads = tower.config.num_heads
    head_dim = tower.config.embed_dim // heads
    theta = float(tower.config.rope_parameters["rope_theta"])
    cosine, sine = _vision_angles(rows, columns, head_dim, theta)
    # A still picture fills both frames of the patch embedding: the sum of the two kernels is one kernel.
    kernel = tower.patch_embed.proj.weight.sum(2).flatten(1)
    hidden = nnf.linear(patches_of(pictures).to(kernel.device), kernel)
    cosine, sine = cosine.to(hidden), sine.to(hidden)
    for block in tower.blocks:
        qkv = block.attn.qkv(block.norm1(hidden)).view(batch, -1, 3, heads, head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = _rotate(query, cosine, sine), _rotate(key, cosine, sine)
        # Written out: the fused kernel's backward pass on a CPU takes three times as long at this size.
        scores = (query * head_dim**-0.5) @ key.transpose(-1, -2)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        hidden = hidden + block.attn.proj(mixed.transpose(1, 2).reshape(batch, hidden.shape[1], -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: torch.Tensor = tower.merger(hidden)
    return merged.view(batch, rows * columns, -1)
