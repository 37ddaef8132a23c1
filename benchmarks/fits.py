"""The memory that each preset for one card is predicted to take, from shapes alone, at full size.

python benchmarks/fits.py [NAME …]     writes the table of docs/training.md, or prints the rows of some

A preset is a config whose name ends in the size of its card, as `_24gb`. Nothing runs on a GPU here: the step
is traced on the meta device and on fake tensors (training/memory.py), with targets of the largest size,
encoders that work on the device in turn, and no cached latents. The last line is JSON.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import torch

from training.memory import predict_memory
from training.ranks import Ranks
from training.recipes import recipe_of
from training.run_settings import named_configs, read_settings

PAGE = Path(__file__).resolve().parents[1] / "docs/training.md"
SHARE = 0.9  # of a card's memory, at most: the rest is for kernels' scratch and fragments
_TABLE = re.compile(r"(<!-- presets -->\n).*?(<!-- end of presets -->)", re.DOTALL)
_NAME = re.compile(r".+_(\d+)gb")
_PARTS = ("weights", "averages", "optimiser", "gradients", "activations")


def presets() -> dict[str, int]:
    """{config: GiB of its card}."""
    return {name: int(found[1]) for name in named_configs() if (found := _NAME.fullmatch(name))}


def predicted(name: str) -> dict[str, float]:
    """GiB of a step of a preset: `predicted_gib` and its parts. Folders of weights need not be there: without
    them settings have the sizes of the full models."""
    settings = read_settings(name, {})
    recipe = recipe_of(settings.recipe, _without_folders(settings.method))
    with torch.device("meta"):
        module = recipe.build(settings.loop.frozen_dtype)
    fields = recipe.fields(*max(settings.data.sizes, key=math.prod))
    blocks = recipe.blocks(module)
    return predict_memory(module, blocks, fields, settings.data.batch, settings.loop, Ranks()).in_gib()


def _without_folders(method: Any) -> Any:
    if not isinstance(method, dict):
        return method
    return {key: _without_folders(value) for key, value in method.items() if not key.endswith("folder")}


def row(name: str, plan: dict[str, float]) -> str:
    """Of the table."""
    figures = " | ".join(f"{plan[part]:.1f}" for part in _PARTS)
    return f"| `{name}` | {presets()[name]} | **{plan['predicted_gib']:.1f}** | {figures} |\n"


def main(names: list[str]) -> int:
    """Returns 1 where a preset is predicted to take more than its share of its card."""
    torch.set_num_threads(1)
    plans = {}
    for name in names or sorted(presets(), key=lambda name: (presets()[name], name)):
        plans[name] = predicted(name)
        print(row(name, plans[name]), end="", flush=True)
    if not names:
        head = f"| config | card | predicted | {' | '.join(_PARTS)} |\n|---|---|---|{'---|' * len(_PARTS)}\n"
        rows = "".join(row(name, plans[name]) for name in sorted(plans))
        PAGE.write_text(_TABLE.sub(rf"\g<1>\n{head}{rows}\n\g<2>", PAGE.read_text()))
    print(json.dumps({name: plan["predicted_gib"] for name, plan in plans.items()}))
    return int(any(plan["predicted_gib"] > SHARE * presets()[name] for name, plan in plans.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
