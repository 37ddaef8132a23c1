"""Attention of FLUX.2 in which references attend to one another alone: so their keys and values are the same
in all steps of a generation.

The sequence is text, references, picture, as diffusers' transformer has it in its modes "extract" and
"cached"; its own processors for these modes (0.42.1) know no mask, and keep keys in training too.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

Turn = tuple[Tensor, Tensor]
"""Cosine and sine of the places."""


def set_references_apart(transformer: nn.Module) -> None:
    """Gives each block of a Flux2Transformer2DModel its processor. They are stateless: what is kept lies in
    diffusers' Flux2KVCache."""
    for block in transformer.transformer_blocks:
        block.attn.set_processor(DoubleAttention())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(SingleAttention())


class DoubleAttention:
    """Of blocks with weights of their own for text and pictures."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Turn,
        kv_cache: Any = None,
        kv_cache_mode: str | None = None,
        num_ref_tokens: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Pictures [B, n, width] and text [B, m, width] → both, attended; the mask is that of `attend`."""
        text, picture = (
            [_heads(project(tokens), attn) for project in projections]
            for tokens, projections in (
                (encoder_hidden_states, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)),
                (hidden_states, (attn.to_q, attn.to_k, attn.to_v)),
            )
        )
        q = torch.cat([attn.norm_added_q(text[0]), attn.norm_q(picture[0])], dim=1)
        k = torch.cat([attn.norm_added_k(text[1]), attn.norm_k(picture[1])], dim=1)
        v = torch.cat([text[2], picture[2]], dim=1)
        ends = (text[0].shape[1], text[0].shape[1] + num_ref_tokens)
        found = attend(q, k, v, image_rotary_emb, attention_mask, ends, kv_cache, kv_cache_mode)
        return attn.to_out[1](attn.to_out[0](found[:, ends[0] :])), attn.to_add_out(found[:, : ends[0]])


class SingleAttention:
    """Of blocks with the same weights for all tokens, their MLP beside."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Turn,
        kv_cache: Any = None,
        kv_cache_mode: str | None = None,
        num_txt_tokens: int = 0,
        num_ref_tokens: int = 0,
    ) -> Tensor:
        """[B, n, width] → the same, attended; the mask is that of `attend`."""
        made = attn.to_qkv_mlp_proj(hidden_states)
        together, mlp = made.split([3 * attn.inner_dim, made.shape[-1] - 3 * attn.inner_dim], dim=-1)
        q, k, v = (_heads(part, attn) for part in together.chunk(3, dim=-1))
        q, k = attn.norm_q(q), attn.norm_k(k)
        ends = (num_txt_tokens, num_txt_tokens + num_ref_tokens)
        found = attend(q, k, v, image_rotary_emb, attention_mask, ends, kv_cache, kv_cache_mode)
        return attn.to_out(torch.cat([found, attn.mlp_act_fn(mlp)], dim=-1))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    turn: Turn,
    mask: Tensor,
    ends: tuple[int, int],
    cache: Any,
    mode: str | None,
) -> Tensor:
    """[B, n, heads, width] each → [B, n, heads · width].

    mask    [B, 1, 1, N] of text, references and picture: whether they are attended to (bool), or by how much
            more
    ends    of text and of references in the sequence
    mode    "cached": the sequence lacks the references, whose keys and values are in the cache; else they
            are put there, but for training, where nothing reads them
    """
    q, k = (apply_rotary_emb(part, turn, sequence_dim=1) for part in (q, k))
    text, end = ends
    if mode == "cached":
        kept = cache.get()
        k, v = (
            torch.cat([new[:, :text], old, new[:, text:]], 1) for new, old in zip((k, v), kept, strict=True)
        )
        return _attention(q, k, v, mask)
    if cache is not None and not torch.is_grad_enabled():
        cache.store(k[:, text:end].clone(), v[:, text:end].clone())
    others = _attention(torch.cat([q[:, :text], q[:, end:]], 1), k, v, mask)
    there = mask[..., text:end] if mask.dtype == torch.bool else mask[..., text:end] > -torch.inf
    # Where no reference is there, all are: nobody reads what comes of it, and of nothing NaN would come.
    there = there | ~there.any(-1, keepdim=True)
    own = _attention(q[:, text:end], k[:, text:end], v[:, text:end], there)
    return torch.cat([others[:, :text], own, others[:, text:]], dim=1)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return dispatch_attention_fn(q, k, v, attn_mask=mask).flatten(2, 3).to(q.dtype)


def _heads(tokens: Tensor, attn: nn.Module) -> Tensor:
    """[B, n, heads · width] → [B, n, heads, width]."""
    return tokens.unflatten(-1, (-1, attn.head_dim))
