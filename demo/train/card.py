"""The card of a trained model: what it learned from, and how good it is on worlds it never saw."""

import hashlib
from pathlib import Path

from demo.train.command import Options
from demo.train.data import MEASURING_SEED, TRAINING_SEED


def write_card(
    weights: Path,
    title: str,
    made_of: str,
    licence: str,
    chosen: Options,
    data: str,
    steps: int,
    batch: int,
    figures: dict[str, float],
) -> None:
    """Writes NAME.md beside the weights (a file or a folder), and prints the figures."""
    files = sorted(p for p in weights.rglob("*") if p.is_file()) if weights.is_dir() else [weights]
    size = sum(file.stat().st_size for file in files)
    hashes = [f"`{f.name}` {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files]
    rows = [f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in figures.items()]
    module = weights.name.split(".")[0].split("_")[0]
    lines = [
        f"# {weights.name}: {title}",
        "",
        f"- What it is: {made_of}.",
        f"- Licence: {licence}.",
        f"- Size: {size / 2**20:.2f} MiB. sha256: {', '.join(hashes)}.",
        f"- Learned from: {data}, seeds from {TRAINING_SEED} on; {steps} steps of {batch}, "
        f"{chosen.minutes:g} minutes on {chosen.threads} "
        f"{'thread' if chosen.threads == 1 else 'threads'} ({chosen.device.type}).",
        f"- Made by: `python -m demo.train.{module} --minutes {chosen.minutes:g} "
        f"--threads {chosen.threads} --seed {chosen.seed} --amount {chosen.amount} --out DIR`.",
        f"- Measured on: worlds of the seeds from {MEASURING_SEED} on, never trained on.",
        "",
        "| measured | value |",
        "|---|---|",
        *rows,
        "",
    ]
    (weights.parent / f"{weights.stem}.md").write_text("\n".join(lines))
    print("\n".join(rows), flush=True)
