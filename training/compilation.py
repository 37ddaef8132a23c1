"""torch.compile, block by block: repeated layers share one graph, so starting takes minutes, not an hour."""

from collections.abc import Iterable

import torch
from torch import nn

# Variants of one kind of block: its widths times the aspect buckets of the data.
_VARIANTS = 128


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Compiles each block in place; module paths stay as they are.

    Shapes are static: each bucket is compiled once, when its first batch comes. A block that cannot be
    compiled whole is an error, not a slow run.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    for block in blocks:
        block.compile(fullgraph=True, dynamic=False, backend=backend)
