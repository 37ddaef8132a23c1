"""Identity cross-attention as diffusers attention processors.

    out = attention(q, k_text, v_text) + scale · attention(q, k_identity, v_identity)

The identity tokens stand behind the text tokens in `encoder_hidden_states` (IP-Adapter,
arXiv 2308.06721). Their number is fixed when the processor is made, and the scale is a tensor: neither
is Python state that a compiled UNet would have to be compiled again for.

The conditions of a picture do not change while it is denoised, so neither do their keys and values in any
layer: `constant_conditions` has them computed once for all steps of a generation. In training they do
change: the processors stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class IdentityCrossAttention(nn.Module):
    """The processor of one cross-attention layer; `to_k_ip` and `to_v_ip` are what is trained of it.

    tokens          identity tokens behind the text tokens
    context_width   of a token
    width           of the layer's keys, C
    """

    scale: Tensor  # float32 scalar, 1 in training

    def __init__(self, tokens: int, context_width: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.to_k_ip = nn.Linear(context_width, width, bias=False)
        self.to_v_ip = nn.Linear(context_width, width, bias=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """[B, H·W, C] and [B, text + tokens, context_width] → [B, H·W, C], as diffusers calls it.

        Raises ValueError for masks, and where there is no text before the identity tokens.
        """
        if encoder_hidden_states is None or attention_mask is not None:
            raise ValueError("identity attention needs encoder_hidden_states and takes no attention mask")
        return self.attend(attn, hidden_states, *self.keys_and_values(attn, encoder_hidden_states))

    def keys_and_values(self, attn: nn.Module, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, text + tokens, context_width] → keys and values of the text, then of identity, each
        [B, heads, N, C / heads]. Raises ValueError where there is no text before the identity tokens."""
        text, identity = context.tensor_split([-self.tokens], dim=1)
        if text.shape[1] == 0 or identity.shape[1] != self.tokens:
            raise ValueError(f"{context.shape[1]} tokens: text must come before {self.tokens} of identity")
        # The weights are float32 while they are trained, whatever the UNet computes in.
        key, value = (linear(identity, w.weight.to(identity.dtype)) for w in (self.to_k_ip, self.to_v_ip))
        made = (attn.to_k(text), attn.to_v(text), key, value)
        text_key, text_value, identity_key, identity_value = (_heads(x, attn.heads) for x in made)
        return text_key, text_value, identity_key, identity_value

    def attend(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        k_text: Tensor,
        v_text: Tensor,
        k_id: Tensor,
        v_id: Tensor,
    ) -> Tensor:
        """[B, H·W, C] and the keys and values → [B, H·W, C]."""
        query = _heads(attn.to_q(hidden_states), attn.heads)
        out = scaled_dot_product_attention(query, k_text, v_text)
        own = scaled_dot_product_attention(query, k_id, v_id)
        joined = (out + self.scale.to(own.dtype) * own).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](joined))


def install_identity_attention(unet: nn.Module, tokens: int) -> None:
    """Gives every cross-attention layer of a diffusers UNet its processor.

    Keys and values of identity start as the text's, which is where IP-Adapter starts from. They are
    float32 whatever the UNet is, because they are trained.
    """
    for _, attn in cross_attentions(unet):
        if attn.group_norm is not None or attn.spatial_norm is not None or attn.norm_cross:
            raise ValueError("identity attention is for plain cross-attention, as Stable Diffusion has it")
        width, context_width = attn.to_k.weight.shape
        with torch.device(attn.to_k.weight.device):
            processor = IdentityCrossAttention(tokens, context_width, width)
        with torch.no_grad():
            processor.to_k_ip.weight.copy_(attn.to_k.weight)
            processor.to_v_ip.weight.copy_(attn.to_v.weight)
        attn.set_processor(processor)


def set_identity_scale(unet: nn.Module, scale: float) -> None:
    """Sets how much identity counts in every layer, in place. 0 leaves the text alone; 1 in training."""
    for module in unet.modules():
        if isinstance(module, IdentityCrossAttention):
            module.scale.fill_(scale)


def cross_attentions(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(module path, layer) of each cross-attention, in the order that released checkpoints count them:
    down, up, mid. The order is ours and not that in which a version of diffusers makes its blocks."""
    for part in ("down_blocks", "up_blocks", "mid_block"):
        for name, module in unet.get_submodule(part).named_modules():
            if name.rsplit(".", 1)[-1] == "attn2":
                yield f"{part}.{name}", module


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, C] → [B, heads, N, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class ConstantCrossAttention(nn.Module):
    """The processor of one layer whose keys and values are known; what it is given as context is unread."""

    def __init__(self, attn: nn.Module, context: Tensor) -> None:
        super().__init__()
        self._processor: IdentityCrossAttention = attn.processor
        self._known = self._processor.keys_and_values(attn, context)

    def forward(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """[B, H·W, C] → [B, H·W, C], as diffusers calls it; B is that of the known context."""
        return self._processor.attend(attn, hidden_states, *self._known)


@contextmanager
def constant_conditions(unet: nn.Module, context: Tensor) -> Iterator[None]:
    """Inside, cross-attention layers see `context` [B, text + tokens, context_width], whatever the UNet is
    called with; the result is the same to the bit.

    At full size and 1,024 px this holds 0.45 GB of bf16 a sample (text and identity), and saves 0.92 TFLOP
    a sample and step (benchmarks/generate.py).
    """
    layers = [attn for _, attn in cross_attentions(unet)]
    processors = [attn.processor for attn in layers]
    try:
        with torch.no_grad():
            for attn in layers:
                attn.set_processor(ConstantCrossAttention(attn, context))
        yield
    finally:
        for attn, processor in zip(layers, processors, strict=True):
            attn.set_processor(processor)
