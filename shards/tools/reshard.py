"""The same samples in the same order, in shards of another size: positions of trainings stay valid."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shards.tools.copying import Copy, copy_samples
from shards.tools.dataset_rows import DatasetRows


def reshard(
    folder: str,
    out: str,
    *,
    max_samples: int,
    max_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the dataset anew. Returns its dataset.json, which keeps the revisions of the old one."""
    source = DatasetRows(folder)
    kept = {str(name): source.about[name] for name in ("revision", "history") if name in source.about}
    numbers = np.arange(len(source), dtype=np.int64)
    copy = Copy([source], np.zeros(len(source), np.int64), numbers, {"operation": "reshard"}, kept)
    return copy_samples(copy, out, max_samples, max_bytes, progress)
