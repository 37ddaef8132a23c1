"""The body-partitioned decoder of Visual Persona: image features of body regions → identity tokens.

Each region has its own learned queries; the layers are shared, and regions do not see one another.
Parameters have the names and shapes of the released checkpoint (`image_proj`), so no key is renamed
on the way in or out.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from training.method_settings import DecoderSettings


class CrossAttention(nn.Module):
    """Attention of queries over features of another width, without biases."""

    def __init__(self, width: int, feature_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj_weight = nn.Parameter(torch.empty(width, width))
        self.k_proj_weight = nn.Parameter(torch.empty(width, feature_width))
        self.v_proj_weight = nn.Parameter(torch.empty(width, feature_width))
        self.out_proj = nn.Linear(width, width, bias=False)
        for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """[N, Q, width] and [N, K, feature_width] → [N, Q, width]."""
        query = linear(x, self.q_proj_weight)
        key = linear(features, self.k_proj_weight)
        value = linear(features, self.v_proj_weight)
        return self.out_proj(_attend(query, key, value, self.heads))


class SelfAttention(nn.Module):
    """Attention of queries over one another, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.out_proj = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, Q, width] → [N, Q, width]."""
        query, key, value = linear(x, self.in_proj_weight).chunk(3, dim=-1)
        return self.out_proj(_attend(query, key, value, self.heads))


class DecoderBlock(nn.Module):
    """Pre-norm: cross-attention, self-attention, MLP, each added to its input.

    The released keys do not say which norm precedes which layer; here 1, 2, 3 are in order of use.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        width = settings.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.cross_attn = CrossAttention(width, settings.feature_width, settings.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.self_attn = SelfAttention(width, settings.heads)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        # Place 2 is empty: the released keys count a dropout there.
        self.mlp = nn.Sequential(
            nn.Linear(width, settings.mlp_width),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(settings.mlp_width, width),
        )

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """[N, Q, width] and [N, K, feature_width] → [N, Q, width]; the features are not normed."""
        x = x + self.cross_attn(self.norm1(x), features)
        x = x + self.self_attn(self.norm2(x))
        return x + self.mlp(self.norm3(x))


class DecoderLayers(nn.Module):
    """The blocks and the last norm."""

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderBlock(settings) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """[N, Q, width] and [N, K, feature_width] → [N, Q, width]."""
        for layer in self.layers:
            x = layer(x, features)
        return self.norm(x)


class RegionDecoder(nn.Module):
    """Image features of the regions of B people → their identity tokens, for any B.

    `pos_embed` [1, Q, width] are queries that all regions share (the first stage of training),
    `new_pos_embed` [R, Q, width] those of each region.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.settings = settings
        shape = (settings.queries, settings.width)
        self.pos_embed = nn.Parameter(torch.randn(1, *shape) * settings.width**-0.5)
        self.new_pos_embed = nn.Parameter(self.pos_embed.detach().repeat(settings.regions, 1, 1))
        self.transformer = DecoderLayers(settings)

    def forward(self, features: Tensor, *, shared_queries: bool = False) -> Tensor:
        """[B, R, K, feature_width] → [B, R · Q, width], regions one after the other."""
        batch, regions = features.shape[:2]
        if regions != self.settings.regions:
            raise ValueError(f"features of {regions} regions, the decoder has {self.settings.regions}")
        queries = self.pos_embed.expand(regions, -1, -1) if shared_queries else self.new_pos_embed
        x = queries.expand(batch, -1, -1, -1).flatten(0, 1)
        return self.transformer(x, features.flatten(0, 1)).unflatten(0, (batch, regions)).flatten(1, 2)

    def of_regions(self, features: Tensor, regions: Tensor, *, shared_queries: bool = False) -> Tensor:
        """[N, K, feature_width] of any regions, int64 [N] which ones → [N, Q, width]."""
        shared = self.pos_embed.expand(self.settings.regions, -1, -1)
        queries = shared if shared_queries else self.new_pos_embed
        return self.transformer(queries[regions], features)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """[N, Q, width], [N, K, width] twice → [N, Q, width]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
