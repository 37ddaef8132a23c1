"""What all training scripts share: their options, and the card of a trained model."""

import argparse
import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from demo.train.data import MEASURING_SEED, TRAINING_SEED

WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Options:
    """A training's options; `amount` counts worlds or people to learn from."""

    out: Path
    minutes: float
    threads: int
    seed: int
    amount: int
    cache: Path
    workers: int
    weights: Path
    device: torch.device


def options(description: str | None, amount: int, amount_means: str, minutes: float) -> Options:
    """Reads the command line, and sets threads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the state to go on from")
    parser.add_argument("--minutes", type=float, default=minutes, help="of training, over all starts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of first weights and batches")
    parser.add_argument("--amount", type=int, default=amount, help=f"{amount_means} to learn from")
    parser.add_argument(
        "--cache", type=Path, default=Path("/tmp/train/cache"), help="folder of rendered samples"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder to export to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    given.weights.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Options(**vars(given), device=device)


def autocast(chosen: Options) -> AbstractContextManager[object]:
    """bfloat16 for the matrix products, on either device."""
    return torch.autocast(chosen.device.type, torch.bfloat16)


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
