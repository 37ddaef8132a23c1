"""Groups of a dataset as one picture: `python -m demo.groups_sheet runs/demo/shards --out docs/groups.jpg`.

A group in each row of a column: photos cut to the person's box, and the label map of the last of them.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.world.collection import jpeg
from shards.format.members import is_picture
from shards.reading.folder import DatasetFolder, Sample
from shards.reading.photo_batches import PhotoSlots

_WIDTH_PX, _HEIGHT_PX = 132, 176  # of a cell
_PHOTOS = 4
_AROUND = 0.08  # of a person's box, on each side
_GAP_PX = 24  # between two columns of groups
_LABELS = 32
# A colour for each label, RGB: neighbouring numbers have hues far apart. 0 is the background.
_HUES = np.array([[(number * 68 % 180, 150, 225) for number in range(_LABELS)]], np.uint8)
_COLOURS = cv2.cvtColor(_HUES, cv2.COLOR_HSV2RGB)[0]
_COLOURS[0] = (38, 38, 46)


def around(record: dict[str, Any]) -> tuple[float, float, float, float]:
    """The part of a photo, px, that shows its person with a margin, in the proportions of a cell."""
    x0, y0, x1, y1 = record["box"]
    height = (y1 - y0) * (1 + 2 * _AROUND)
    width = max((x1 - x0) * (1 + 2 * _AROUND), height * _WIDTH_PX / _HEIGHT_PX)
    height = max(height, width * _HEIGHT_PX / _WIDTH_PX)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    turned = record["orientation"] >= 5
    right, bottom = (record["height"], record["width"]) if turned else (record["width"], record["height"])
    return (
        max(x - width / 2, 0),
        max(y - height / 2, 0),
        min(x + width / 2, right),
        min(y + height / 2, bottom),
    )


def row_of(sample: Sample) -> np.ndarray:
    """uint8 [176, 5 × 132, 3]: the first photos of a group, and the labels of the last of these."""
    photos = [name.partition(".")[0] for name in sample.members if is_picture(name)][:_PHOTOS]
    slots = PhotoSlots(_HEIGHT_PX, _WIDTH_PX, box=around)
    arrays = slots.allocate(len(photos))
    for number, photo in enumerate(photos):
        slots.fill(sample.members, photo, arrays, number)
    cells = [*arrays["images"], _COLOURS[arrays["masks"][-1] % _LABELS]]
    cells += [np.full_like(cells[0], 255)] * (_PHOTOS + 1 - len(cells))
    return np.concatenate(cells, axis=1)


def sheet(folder: DatasetFolder, columns: int, rows: int) -> np.ndarray:
    """uint8 [rows × 176, …, 3]: the groups with the most photos, in the order of their keys."""
    order = sorted(range(len(folder)), key=lambda number: (-folder.index.people(number), number))
    found = [row_of(folder.read(number)) for number in sorted(order[: columns * rows])]
    blocks = [np.concatenate(found[start : start + rows]) for start in range(0, len(found), rows)]
    parts: list[np.ndarray] = []
    for block in blocks:
        gap = np.full((len(block), _GAP_PX if parts else 0, 3), 255, np.uint8)
        parts += [gap, block]
    return np.concatenate(parts, axis=1)


def main() -> int:
    """Reads the groups and writes the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.groups_sheet", description="Groups of a dataset as one picture."
    )
    parser.add_argument("dataset")
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True, help="a .jpg file")
    given = parser.parse_args()
    given.out.write_bytes(jpeg(sheet(DatasetFolder(given.dataset), given.columns, given.rows), 88))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
