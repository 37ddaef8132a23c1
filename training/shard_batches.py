"""Batches for the loop out of shards: pairs in the order of the epochs, without an end."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.format.contents import REGION_NAMES, bits_of
from shards.format.dataset import DatasetError
from shards.format.members import IMAGE_SUFFIXES
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Batch as LoadedBatch
from shards.reading.loader import Loader
from shards.reading.torch_dataset import as_tensor
from training.batch import Batch, Field
from training.latents import MEMBER, STATED
from training.pair_fields import RECONSTRUCTED, members_for
from training.randomness import Purpose, streams, uniform


def no_reconstruction(progress: float) -> float:
    """References are other photos than targets, always."""
    return 0.0


class ShardBatches:
    """The loop's `Batches` from a Loader whose decoder is `PairFields`.

    run_samples       of all ranks, to the end of the training: what `progress` is measured by
    reconstruction    share of samples that are their own reference, by a progress of 0 to 1

    Which sample reconstructs is drawn for the sample, and the progress of a batch is its place in the
    order: both are the same for any number of ranks, and after a resume.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        run_samples: int,
        reconstruction: Callable[[float], float] = no_reconstruction,
    ) -> None:
        if run_samples < 1:
            raise ValueError(f"a run of {run_samples} samples trains nothing")
        self._loader, self._run_samples, self._reconstruction = loader, run_samples, reconstruction
        self._coming: Iterator[LoadedBatch] | None = None

    def __iter__(self) -> "ShardBatches":
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises DatasetError, one line, where an epoch has none."""
        if self._coming is None:
            self._coming = self._loader.endless()
        loaded = next(self._coming, None)
        if loaded is None:
            loader = self._loader
            raise DatasetError(
                f"an epoch of {len(loader.source)} samples has no whole step of {loader.world} ranks × "
                f"{loader.batch} samples"
            )
        return self._batch(loaded)

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch that was handed out."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there. Raises ValueError for the state of another dataset."""
        self._loader.load_state_dict(state)
        self._coming = None

    def _batch(self, loaded: LoadedBatch) -> Batch:
        # A slot whose sample could not be read has no key; its weight is 0.
        numbers = loaded.samples.tolist()
        keys = [
            key if key is not None else f"sample {number}"
            for key, number in zip(loaded.arrays["keys"], numbers, strict=True)
        ]
        drawn = streams(loaded.after.seed, loaded.epoch, keys)
        tensors = {name: as_tensor(array) for name, array in loaded.arrays.items() if name != "keys"}
        fields = _reconstructed(tensors, drawn, self._reconstruction(self._progress(loaded)))
        return Batch(fields, keys, drawn, torch.from_numpy(loaded.weight))

    def _progress(self, loaded: LoadedBatch) -> float:
        whole = len(self._loader.source)
        done = loaded.after.consumed if loaded.after.epoch == loaded.epoch else whole
        return min((loaded.epoch * whole + done) / self._run_samples, 1.0)


def _reconstructed(tensors: dict[str, Tensor], drawn: Tensor, share: float) -> dict[str, Tensor]:
    """The fields, with the target as the reference of a share of samples, where the decoder has made it."""
    fields = {name: tensor for name, tensor in tensors.items() if not name.startswith(RECONSTRUCTED)}
    made = tensors.keys() - fields.keys()
    if not made or not share:
        return fields
    own = uniform(drawn, Purpose.RECONSTRUCTION)[:, 0] < share
    for name in made:
        reference = name.removeprefix(RECONSTRUCTED)
        shape = (-1, *[1] * (tensors[name].ndim - 1))
        fields[reference] = torch.where(own.view(shape), tensors[name], tensors[reference])
    return fields


def check_dataset(
    dataset: DatasetFolder,
    fields: Sequence[Field],
    *,
    batch: int,
    world: int,
    regions: Sequence[str] = (),
) -> None:
    """Raises ValueError, one line, where a dataset cannot serve a recipe; reads the index alone.

    It must hold the members that the fields are made from, groups with two photos that show the regions,
    and a step's samples.
    """
    if len(dataset) < batch * world:
        raise ValueError(
            f"the dataset has {len(dataset)} samples; a step of {world} ranks × {batch} needs {batch * world}"
        )
    members = members_for(fields)
    for member in sorted({*members.reference, *members.target} - {*IMAGE_SUFFIXES}):
        _check_member(dataset, member)
    unknown = [name for name in regions if name not in REGION_NAMES]
    if unknown:
        raise ValueError(f"data.regions: there is no region {unknown[0]!r}: {', '.join(REGION_NAMES)}")
    photos = dataset.index.photos
    fit = np.concatenate([[0], np.cumsum(photos.regions & bits_of(regions) == bits_of(regions))])
    if not (np.diff(fit[photos.starts]) > 1).any():
        shown = f" that show {', '.join(regions)}" if regions else ""
        raise ValueError(f"no group of the dataset has two photos{shown}: there are no pairs to train on")


def _check_member(dataset: DatasetFolder, member: str) -> None:
    """By the first sample; latents by dataset.json, for photos that could not be read have none."""
    suffixes = {place.suffix for place in dataset.index.members(0)}
    if member == MEMBER and STATED in dataset.about:
        return
    if f"000.{member}" not in suffixes:
        raise ValueError(
            f"the dataset's samples have no 000.{member}, which the recipe's fields are made from: "
            f"sample {dataset.index.key(0)} has {', '.join(sorted(suffixes))}"
        )
