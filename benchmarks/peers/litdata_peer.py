"""litdata: chunks of its own format, written by `optimize`; a transform decodes in worker processes."""

from collections.abc import Callable, Iterator
from typing import Any

import litdata
import measure


def _as_it_is(sample: Any) -> Any:
    return sample


def prepare(dataset: str, folder: str) -> None:
    """Chunks of 64 MB with the encoded bytes."""
    names = ("photo", "labels", "record")
    with_names = [dict(zip(names, sample, strict=True)) for sample in measure.source_samples(dataset)]
    litdata.optimize(
        fn=_as_it_is,
        inputs=with_names,
        output_dir=folder,
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def read(folder: str, workers: int, decode: Callable[..., measure.Decoded]) -> Iterator[measure.Batch]:
    """Batches for ever."""

    def decoded(sample: dict[str, bytes]) -> measure.Decoded:
        return decode(sample["photo"], sample["labels"], sample["record"])

    dataset = litdata.StreamingDataset(folder, shuffle=True, drop_last=True, transform=decoded)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=measure.BATCH, num_workers=workers, collate_fn=measure.collate, drop_last=True
    )
    while True:
        yield from loader


if __name__ == "__main__":
    measure.main(prepare, read)
