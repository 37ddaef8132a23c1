"""LoRA of FLUX.2 under the names of Black Forest Labs' own code, as ComfyUI reads it.

A key is `diffusion_model.`, the path of a layer in BFL's transformer, `.lora_A.weight` or `.lora_B.weight`;
alpha is the rank. q, k and v of a double block are one layer there, `qkv`: its A has the three A one below
the other, its B the three B on the diagonal, so that its change is exactly theirs. The names are those that
ai-toolkit writes, and that diffusers reads back (`_convert_non_diffusers_flux2_lora_to_diffusers`, 0.42.1).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from training.released_layout import LayoutError

_PREFIX, _THEIRS = "transformer.", "diffusion_model."
_KEY = re.compile(r"transformer\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")
_BLOCK = re.compile(r"(?P<kind>(?:single_)?transformer_blocks)\.(?P<number>\d+)\.(?P<layer>.+)")
_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
} | {layer: fused for fused, layers in _FUSED.items() for layer in layers}
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
_OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}


def bfl_tensors(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LoRA under PEFT's names behind `transformer.` → under BFL's. Raises LayoutError, one line, for what is
    none: DoRA, or a transformer that was trained itself."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in released.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise LayoutError(f"{key}: only LoRA has names that ComfyUI reads")
        layers.setdefault(found["layer"], {})[found["part"]] = tensor
    made: dict[str, dict[str, Tensor]] = {}
    fused: dict[str, dict[str, dict[str, Tensor]]] = {}
    for path, parts in layers.items():
        block, layer, theirs = _place(path)
        if theirs in _FUSED:
            fused.setdefault(f"{block}{theirs}", {})[layer] = parts
        else:
            made[f"{block}{theirs}"] = parts
    for path, by_layer in fused.items():
        made[path] = _fuse([by_layer.get(layer) for layer in _FUSED[path.split(".", 2)[2]]])
    return {
        f"{_THEIRS}{path}.lora_{name}.weight": tensor
        for path, parts in made.items()
        for name, tensor in parts.items()
    }


def _place(path: str) -> tuple[str, str, str]:
    """A layer's path → BFL's block with its dot, the layer in diffusers' block, BFL's layer."""
    found = _BLOCK.fullmatch(path)
    layer = path if found is None else found["layer"]
    single = found is not None and found["kind"].startswith("single")
    names = _OUTSIDE if found is None else _SINGLE if single else _DOUBLE
    if layer not in names:
        raise LayoutError(f"{_PREFIX}{path}: BFL's transformer has no such layer")
    block = "" if found is None else f"{'single' if single else 'double'}_blocks.{found['number']}."
    return block, layer, names[layer]


def _fuse(parts: list[dict[str, Tensor] | None]) -> dict[str, Tensor]:
    """A and B of q, k and v, each or none → of the three in one."""
    known = [part for part in parts if part is not None]
    out = len(known[0]["B"])
    blocks = [known[0]["B"].new_zeros(out, 0) if part is None else part["B"] for part in parts]
    return {"A": torch.cat([part["A"] for part in known]), "B": torch.block_diag(*blocks)}
