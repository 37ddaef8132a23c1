"""Megatron-Energon: WebDataset tars with an index of its own; a task encoder cooks and batches samples."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    WorkerConfig,
    basic_sample_keys,
    get_loader,
    get_train_dataset,
    stateless,
)


def prepare(dataset: str, folder: str) -> None:
    """Links to the tars, and `energon prepare` over them."""
    Path(folder).mkdir(parents=True)
    for tar in sorted(Path(dataset).glob("*.tar")):
        (Path(folder) / tar.name).symlink_to(tar.resolve())
    energon = Path(sys.executable).with_name("energon")
    options = ["--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--num-workers", "1"]
    subprocess.run([energon, "prepare", "--non-interactive", *options, folder], check=True)


@dataclass
class Photo(Sample):
    """A decoded sample."""

    decoded: Any


class Encoder(DefaultTaskEncoder):
    """Decodes, and makes batches as the other peers do."""

    decoder = None

    def __init__(self, decode: Callable[..., measure.Decoded]) -> None:
        super().__init__()

        @stateless
        def cook(sample: dict[str, Any]) -> Photo:
            """Bytes by name to tensors."""
            return Photo(**basic_sample_keys(sample), decoded=decode(*(sample[n] for n in measure.NAMES)))

        self.cookers = [Cooker(cook)]

    def batch(self, samples: list[Photo]) -> Any:
        """As the other peers."""
        return measure.collate([sample.decoded for sample in samples])


def members(folder: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """What it finds in our tars."""
    dataset = get_train_dataset(
        folder,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        task_encoder=Encoder(lambda *encoded: dict(zip(measure.NAMES, encoded, strict=True))),
        repeat=False,
    )
    for sample in get_loader(dataset):
        yield sample.__key__.rsplit("/", 1)[-1], sample.decoded


def read(folder: str, workers: int, decode: Callable[..., measure.Decoded]) -> Iterator[measure.Batch]:
    """Batches for ever."""
    dataset = get_train_dataset(
        folder,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=measure.BATCH,
        shuffle_buffer_size=measure.SHUFFLE,
        max_samples_per_sequence=100,
        task_encoder=Encoder(decode),
    )
    yield from get_loader(dataset)


if __name__ == "__main__":
    measure.main(prepare, read, members=members)
