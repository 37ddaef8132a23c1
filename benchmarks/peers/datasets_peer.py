"""Hugging Face datasets: an Arrow table of encoded bytes, mapped; torch's worker processes decode."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import measure
import torch


def prepare(dataset: str, folder: str) -> None:
    """An Arrow table on disk."""
    names = ("photo", "labels", "record")

    def rows() -> Iterator[dict[str, bytes]]:
        for sample in measure.source_samples(dataset):
            yield dict(zip(names, sample, strict=True))

    features = datasets.Features({name: datasets.Value("binary") for name in names})
    table = datasets.Dataset.from_generator(rows, features=features, cache_dir=f"{folder}-cache")
    table.save_to_disk(folder)


def read(folder: str, workers: int, decode: Callable[..., measure.Decoded]) -> Iterator[measure.Batch]:
    """Batches for ever."""

    def batch(rows: list[dict[str, Any]]) -> measure.Batch:
        return measure.collate([decode(row["photo"], row["labels"], row["record"]) for row in rows])

    loader = torch.utils.data.DataLoader(
        datasets.load_from_disk(folder),
        batch_size=measure.BATCH,
        shuffle=True,
        num_workers=workers,
        collate_fn=batch,
        drop_last=True,
    )
    while True:
        yield from loader


def members(folder: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """What its reader of WebDataset finds in our tars."""
    tars = [str(path) for path in sorted(Path(folder).glob("*.tar"))]
    found = datasets.load_dataset("webdataset", data_files={"train": tars}, split="train", streaming=True)
    photo, labels, record = measure.NAMES
    for name in (photo, labels):
        found = found.cast_column(name, datasets.Image(decode=False))
    for sample in found:
        yield (
            sample["__key__"].rsplit("/", 1)[-1],
            {
                photo: sample[photo]["bytes"],
                labels: sample[labels]["bytes"],
                record: json.dumps(sample[record]).encode(),
            },
        )


if __name__ == "__main__":
    measure.main(prepare, read, members=members)
