"""A contact sheet of a world: `python -m demo.world.sheet --seed 11 --out docs/world.jpg`."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from demo.world.collection import jpeg
from demo.world.plan import make_world
from demo.world.render import render

_ROW_PX = 240
_WIDTH_PX = 1600


def sheet(images: list[np.ndarray], rows: int) -> np.ndarray:
    """uint8 [rows × 240, 1600, 3]: images side by side at one height, as many as fit."""
    done: list[np.ndarray] = []
    row: list[np.ndarray] = []
    for image in images:
        width = round(image.shape[1] * _ROW_PX / image.shape[0])
        small = cv2.resize(image, (width, _ROW_PX), interpolation=cv2.INTER_AREA)
        if sum(part.shape[1] for part in row) + width > _WIDTH_PX:
            done.append(_justified(row))
            row = []
            if len(done) == rows:
                break
        row.append(small)
    else:
        done.append(_justified(row))
    return np.concatenate(done)


def _justified(row: list[np.ndarray]) -> np.ndarray:
    """A row whose photos are spread over the whole width."""
    spare = _WIDTH_PX - sum(part.shape[1] for part in row)
    gaps = np.diff(np.linspace(0, spare, len(row)).astype(int)) if len(row) > 1 else np.array([], int)
    out = np.full((_ROW_PX, _WIDTH_PX, 3), 255, np.uint8)
    x = 0
    for number, part in enumerate(row):
        out[:, x : x + part.shape[1]] = part
        x += part.shape[1] + (int(gaps[number]) if number < len(gaps) else 0)
    return out


def main() -> int:
    """Renders and writes the sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.world.sheet", description="A contact sheet of a world."
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True, help="a .jpg file")
    given = parser.parse_args()
    plans = make_world(given.seed, 200).photos
    odd = [plan for plan in plans if plan.kind in ("crowd", "poster", "statue")][::4]
    plain = [plan for plan in plans if plan.kind == "photo" and plan.copy_of is None]
    chosen = [*plain[: 7 * given.rows], *odd[:3]]
    order = np.random.default_rng(given.seed).permutation(len(chosen))
    given.out.write_bytes(jpeg(sheet([render(chosen[i]).image for i in order], given.rows), 88))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
