"""The options that all training scripts share."""

import argparse
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

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
