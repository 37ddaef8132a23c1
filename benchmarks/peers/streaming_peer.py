"""MosaicML streaming: MDS shards; `__getitem__` decodes in torch's worker processes."""

from collections.abc import Callable, Iterator
from typing import Any

import measure
import torch
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory


def prepare(dataset: str, folder: str) -> None:
    """MDS shards of 64 MB with the encoded bytes."""
    columns = {"photo": "bytes", "labels": "bytes", "record": "bytes"}
    with MDSWriter(out=folder, columns=columns, size_limit=64 * 2**20) as writer:
        for sample in measure.source_samples(dataset):
            writer.write(dict(zip(columns, sample, strict=True)))


class Decoded(StreamingDataset):
    """Samples as tensors."""

    def __init__(self, decode: Callable[..., measure.Decoded], **options: Any) -> None:
        super().__init__(**options)
        self._decode = decode

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return self._decode(sample["photo"], sample["labels"], sample["record"])


def read(folder: str, workers: int, decode: Callable[..., measure.Decoded]) -> Iterator[measure.Batch]:
    """Batches for ever."""
    clean_stale_shared_memory()
    dataset = Decoded(decode, local=folder, shuffle=True, batch_size=measure.BATCH, num_canonical_nodes=1)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=measure.BATCH, num_workers=workers, collate_fn=measure.collate, drop_last=True
    )
    while True:
        yield from loader


if __name__ == "__main__":
    measure.main(prepare, read)
