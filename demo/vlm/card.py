"""The card of the demo's VLM: what it is, what it learned from, and how right it is on unseen people."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any


def card(model: Path, training: dict[str, Any], figures: dict[str, float]) -> str:
    """Markdown of a model folder, its training.json, and the figures of `demo.vlm.measure`."""
    files = sorted(path for path in model.iterdir() if path.is_file())
    hashes = [f"`{path.name}` {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    size = sum(path.stat().st_size for path in files)
    steps = ", ".join(f"{name} {number}" for name, number in training["steps"].items())
    batches = ", ".join(f"{name} {number}" for name, number in training["batches"].items())
    rows = [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in figures.items()]
    return "\n".join(
        [
            f"# {model.name}: judge of outfits and captioner of the demo",
            "",
            "- What it is: a Qwen2-VL (`Qwen2VLForConditionalGeneration`), made from nothing: vision tower "
            "of 4 layers of 192, patches of 14 px, 28 px to a token; language model of 4 layers of 256 with "
            "heads of 64; 640 tokens of byte-level BPE; bfloat16.",
            "- Licence: Apache-2.0.",
            f"- Size: {size / 2**20:.2f} MiB. sha256: {', '.join(hashes)}.",
            f"- Learned from: {training['pictures']} pictures of {training['people']} people in "
            f"{training['outfits']} outfits, of {len(training['worlds'])} worlds "
            f"({training['worlds'][0]} to {training['worlds'][-1]}).",
            f"- Steps: {steps}. Pictures or pairs in a step: {batches}. Seed {training['seed']}.",
            "- Made by: `python -m demo.vlm.pool` and `python -m demo.vlm.train`; see demo/vlm/README.md.",
            "- Measured by: `python -m demo.vlm.measure`, on a world that nothing was trained on.",
            "- Fit for: rendered people of `demo.world`, in the demo's prompts and canvases. Nothing else.",
            "",
            "| measured | value |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Write the card beside the model folder."""
    parser = argparse.ArgumentParser(
        description="Writes MODEL.md beside a model folder, from training.json and measured figures.",
        epilog="example: python -m demo.vlm.measure | tail -1 > /tmp/figures.json && python -m demo.vlm.card "
        "--training /tmp/train/vlm/training.json --figures /tmp/figures.json",
    )
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "weights" / "vlm")
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    settings = parser.parse_args()
    text = card(
        settings.model, json.loads(settings.training.read_text()), json.loads(settings.figures.read_text())
    )
    settings.model.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
