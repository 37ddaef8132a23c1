"""Pictures in rows and columns, as one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_GAP_PX = 4
_PAPER = (255, 255, 255)


def picture_grid(columns: Sequence[np.ndarray], *, height_px: int = 192) -> Image.Image:
    """uint8 [rows, h, w, 3] for each column, of any sizes → RGB, every picture `height_px` high."""
    if not columns or len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise ValueError("a grid needs columns of one length, and a row")
    widths = [max(round(column.shape[2] * height_px / column.shape[1]), 1) for column in columns]
    rows = len(columns[0])
    size = (sum(widths) + _GAP_PX * (len(columns) - 1), rows * height_px + _GAP_PX * (rows - 1))
    grid = Image.new("RGB", size, _PAPER)
    left = 0
    for column, width in zip(columns, widths, strict=True):
        for row, pixels in enumerate(column):
            picture = Image.fromarray(pixels).resize((width, height_px), Image.Resampling.LANCZOS)
            grid.paste(picture, (left, row * (height_px + _GAP_PX)))
        left += width + _GAP_PX
    return grid
