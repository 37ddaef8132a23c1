"""webdataset: tars read in their order, shuffled in a buffer, decoded and batched in worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import webdataset as wds


def prepare(dataset: str, folder: str) -> None:
    """The tars are read as they are."""
    Path(folder).symlink_to(Path(dataset).resolve())


def tars(folder: str) -> list[str]:
    """The shards."""
    return [str(path) for path in sorted(Path(folder).glob("*.tar"))]


def read(folder: str, workers: int, decode: Callable[..., measure.Decoded]) -> Iterator[measure.Batch]:
    """Batches for ever."""

    def decoded(sample: dict[str, Any]) -> measure.Decoded:
        return decode(*(sample[name] for name in measure.NAMES))

    dataset = (
        wds.WebDataset(tars(folder), shardshuffle=100, repeat=True, empty_check=False)
        .shuffle(measure.SHUFFLE)
        .map(decoded)
        .batched(measure.BATCH, collation_fn=measure.collate)
    )
    yield from wds.WebLoader(dataset, batch_size=None, num_workers=workers)


def raw(folder: str) -> Iterator[Any]:
    """Members as bytes, one epoch, in this process."""
    return iter(wds.WebDataset(tars(folder), shardshuffle=False))


def members(folder: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """What it finds in our tars."""
    return ((sample["__key__"], sample) for sample in raw(folder))


if __name__ == "__main__":
    measure.main(prepare, read, raw, members)
