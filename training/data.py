"""The data of a run from its settings: datasets, sizes, latents or pictures, batches for the loop."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from shards.format.contents import REGION_NAMES, bits_of
from shards.format.dataset import DatasetError
from shards.format.members import IMAGE_SUFFIXES
from shards.reading.buckets import BucketedPairs
from shards.reading.folder import DatasetFolder
from shards.reading.loader import LoadedBatch, Loader
from shards.reading.mixture import Mixture
from shards.reading.pairs import Pair, Pairs
from shards.reading.photo_batches import BatchMemory
from shards.reading.revisions import Revisions
from shards.reading.source import Epoch, Source
from shards.reading.steps import Position
from shards.reading.torch_dataset import PinnedMemory, as_tensor
from training.batch import Batch, Field
from training.latents import MEMBER, STATED, sizes_text, statement_of
from training.pair_fields import Jitter, PairFields, members_for
from training.randomness import Purpose, streams, uniform
from training.ranks import Ranks
from training.recipes.recipe import Recipe
from training.run_settings import DataSettings


class Reconstructions(Source):
    """Pairs of which some are their own reference: the target stands in for the other photo.

    pairs         of one dataset or a mixture of several, whose members serve a reference and a target alike
                  (`members_for(…, reconstruct=True)`)
    share         of such samples, by a progress of 0 to 1
    run_samples   of all ranks, to the end of the training: what progress is measured by

    Which samples these are is drawn for the sample, and progress is its place in the order: both are the same
    for any number of ranks, and after a resume.
    """

    def __init__(self, pairs: Pairs | Mixture, share: Callable[[float], float], run_samples: int) -> None:
        if run_samples < 1:
            raise ValueError(f"a run of {run_samples} samples trains nothing")
        self.pairs, self.share, self.run_samples = pairs, share, run_samples
        self.has_state = pairs.has_state

    @property
    def revisions(self) -> Revisions:  # a mixture has others once a state is loaded
        """Those of the pairs."""
        return self.pairs.revisions

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, sample: int) -> Pair:
        """The pair of epoch 0 of seed 0."""
        pair: Pair = self.pairs.read(sample)
        return pair

    def epoch(self, position: Position) -> Epoch:
        """The pass of the pairs."""
        return _ReconstructionsEpoch(self, position)

    def state_at(self, position: Position) -> Any:
        """That of the pairs."""
        return self.pairs.state_at(position)

    def load_state(self, state: Any, position: Position) -> None:
        """That of the pairs."""
        self.pairs.load_state(state, position)


class _ReconstructionsEpoch(Epoch):
    def __init__(self, source: Reconstructions, position: Position) -> None:
        self._of, self._pairs = source, source.pairs.epoch(position)
        self.position, self.samples, self.ends = self._pairs.position, self._pairs.samples, self._pairs.ends
        self._own: set[int] = set()  # of what has been looked up

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """Those of the pairs; which of them are their own reference is drawn here, for many at once."""
        numbers = self._pairs.numbers(places)
        before, whole = self.position.epoch * len(self._of), self._of.run_samples
        shares = torch.tensor(
            [self._of.share(min((before + place) / whole, 1.0)) for place in places.tolist()]
        )
        if shares.any():
            of_samples = streams_of(self._of.pairs, self.position.seed, self.position.epoch, numbers)
            drawn = uniform(of_samples, Purpose.RECONSTRUCTION)
            self._own.update(numbers[(drawn[:, 0] < shares).numpy()].tolist())
        return numbers

    def read(self, number: int) -> Pair:
        pair: Pair = self._pairs.read(number)
        return pair._replace(reference=pair.target) if number in self._own else pair

    def prefetch(self, numbers: np.ndarray) -> None:
        self._pairs.prefetch(numbers)

    def kind(self, place: int) -> int:
        return self._pairs.kind(place)


def streams_of(pairs: Pairs | Mixture, seed: int, epoch: int, numbers: np.ndarray) -> Tensor:
    """int64 [k] numbers of samples → their random streams, int64 [k].

    In a mixture a small dataset comes round several times an epoch: streams are of its own seed and pass.
    """
    if isinstance(pairs, Pairs):
        return streams(seed, epoch, [pairs.folder.index.key(number) for number in numbers.tolist()])
    part, passes, local = pairs.whence(numbers)
    _, anchors = pairs.anchors(seed)
    each = []
    for source, number, sample in zip(part.tolist(), passes.tolist(), local.tolist(), strict=True):
        of = pairs.sources[source]
        assert isinstance(of, Pairs)
        each.append(streams(anchors[source].seed, number, [of.folder.index.key(sample)]))
    return torch.cat(each)


_LISTS = ("keys", "tally")  # of a batch's arrays: what no device is given


class ShardBatches:
    """The loop's `Batches` from a Loader whose decoder is `PairFields`.

    counts    what the host knows of a batch, of its fields and streams (`Recipe.counts`)
    mixture   of the datasets that the loader reads, where these are several
    """

    def __init__(
        self,
        loader: Loader,
        counts: Callable[..., dict[str, int]] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        self._loader, self._counts, self._mixture = loader, counts, mixture
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
        seed = loaded.after.seed
        if self._mixture is None:
            drawn = streams(seed, loaded.epoch, keys)
        else:
            drawn = streams_of(self._mixture, seed, loaded.epoch, loaded.samples)
        # As they were allocated, in pinned memory where there is a GPU: a copy of them would lie outside.
        fields = {name: as_tensor(array) for name, array in loaded.arrays.items() if name not in _LISTS}
        counts = {} if self._counts is None else self._counts(fields, drawn)
        tally = Counter(name for name in loaded.arrays["tally"] if name is not None)
        return Batch(fields, keys, drawn, torch.from_numpy(loaded.weight), counts, tally)


def check_dataset(
    dataset: DatasetFolder,
    fields: Sequence[Field],
    *,
    batch: int,
    world: int,
    tail: Literal["pad", "drop"] = "pad",
    regions: Sequence[str] = (),
) -> None:
    """Raises ValueError, one line, where a dataset cannot serve a recipe; reads the index alone.

    It must hold the members that the fields are made from, groups with two photos that show the regions,
    and a step's samples, where what fills no step is left out.
    """
    if len(dataset) < (batch * world if tail == "drop" else 1):
        raise ValueError(
            f"the dataset has {len(dataset)} samples; a step of {world} ranks × {batch} needs {batch * world}"
            " (data.batch sets how many; data.tail=pad fills a step up)"
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


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """The datasets of a run, opened and checked.

    recipe       as it was given, or reading latents where the datasets have them
    trained      datasets that are trained on, each with its share of the samples
    left_out     keys of samples that count for nothing
    """

    recipe: Recipe
    settings: DataSettings
    ranks: Ranks
    trained: Sequence[tuple[DatasetFolder, int]]
    held_out: DatasetFolder | None
    left_out: frozenset[str] = frozenset()

    def stated(self) -> list[dict[str, Any]]:
        """What checkpoints, and cards of models, say of the datasets that are trained on."""
        found = []
        for folder, share in self.trained:
            where, about = PurePosixPath(folder.place.rstrip("/")), folder.about
            name = where.parent.name if where.name == "shards" and where.parent.name else where.name
            known = {key: about.get(key) for key in ("groups", "photos", "licences", "checksum", "revision")}
            found.append({"name": name, "share": share, **known})
        return found

    @property
    def validation_checksum(self) -> str | None:
        """Of the held-out dataset, where there is one."""
        return None if self.held_out is None else str(self.held_out.about["checksum"])

    def batches(self, run_samples: int) -> ShardBatches:
        """This rank's, without an end. `run_samples`: of all ranks, to the end of the training."""
        loader = self._loader(self.trained, run_samples)
        source = loader.source
        pairs = source.pairs if isinstance(source, Reconstructions) else source
        mixture = pairs if isinstance(pairs, Mixture) else None
        return ShardBatches(loader, partial(self.recipe.counts, drop=True), mixture)

    def batches_per_epoch(self) -> int:
        """Of each rank, in the first epoch; in buckets another one may have a few more or less."""
        return self._loader(self.trained, 1).steps_per_epoch()

    def validation(self) -> list[Batch]:
        """This rank's fixed batches of held-out people; none without such a dataset. None reconstructs."""
        if self.held_out is None:
            return []
        fixed = ShardBatches(self._loader([(self.held_out, 1)]), partial(self.recipe.counts, drop=False))
        return [next(fixed) for _ in range(self.settings.validation_batches)]

    def _loader(self, shared: Sequence[tuple[DatasetFolder, int]], run_samples: int | None = None) -> Loader:
        """`run_samples`: of all ranks, to the end of a training; None: nothing of the data is changed."""
        settings, recipe, ranks = self.settings, self.recipe, self.ranks
        reconstruct = run_samples is not None and recipe.reconstruction_share(0) > 0
        memory = PinnedMemory() if ranks.device.type == "cuda" else BatchMemory()
        tokenise = recipe.tokeniser()
        made: dict[str, Any] = {
            "left_out": self.left_out, "memory": memory, "min_target_px": settings.min_target_px
        }  # fmt: skip
        if run_samples is not None:
            made["jitter"] = Jitter(settings.flip, settings.crop_jitter, settings.colour_jitter)
        decoders = [PairFields(recipe.fields(*size), tokenise, size, **made) for size in settings.sizes]
        members = members_for(recipe.fields(*settings.sizes[0]), reconstruct=reconstruct)
        asked: dict[str, Any] = {"regions": settings.regions, "members": members}
        each = [
            Pairs(folder, **asked)
            if settings.buckets == "one"
            else BucketedPairs(folder, settings.sizes, length=settings.bucket_run, **asked)
            for folder, _ in shared
        ]
        pairs = each[0] if len(each) == 1 else Mixture(each, [share for _, share in shared])
        source: Source = pairs
        if reconstruct and run_samples is not None:
            source = Reconstructions(pairs, recipe.reconstruction_share, run_samples)
        return Loader(
            source, decoders, settings.batch, Position(settings.seed), ranks.rank, ranks.world,
            tail=settings.tail, threads=settings.threads, ahead=settings.ahead,
            max_broken=settings.max_broken,
        )  # fmt: skip


def open_data(
    settings: DataSettings,
    recipe: Recipe,
    ranks: Ranks,
    shards: str | Sequence[tuple[str, int]],
    validation: str | None = None,
) -> RunData:
    """Opens and checks what the recipe needs. Raises ValueError, one line; no model is built before.

    shards   a dataset, or several, each with its share of the samples
    """
    shared = [(shards, 1)] if isinstance(shards, str) else list(shards)
    for size in settings.sizes:
        recipe.base.check_size(*size)
    folders = {name: _trained_on(name) for name, _ in shared}
    if validation is not None and validation not in folders:
        folders[validation] = DatasetFolder(validation)
    if _serve_latents(folders, recipe, settings):
        recipe = recipe.with_denoising(cached_latents=True)
    for folder in folders.values():
        check_dataset(
            folder, recipe.fields(*settings.sizes[0]), batch=settings.batch, world=ranks.world,
            tail=settings.tail, regions=settings.regions,
        )  # fmt: skip
    held_out = folders[validation] if validation is not None else None
    trained = [(folders[name], share) for name, share in shared]
    return RunData(recipe, settings, ranks, trained, held_out, _left_out(settings.leave_out))


def _left_out(file: str | None) -> frozenset[str]:
    """Keys in a file. Raises ValueError where it cannot be read."""
    if file is None:
        return frozenset()
    try:
        lines = Path(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.leave_out: {file}: {str(error).splitlines()[0]}") from None
    keys = (line.partition("#")[0].strip() for line in lines)
    return frozenset(key for key in keys if key)


def _serve_latents(folders: dict[str, DatasetFolder], recipe: Recipe, settings: DataSettings) -> bool:
    """Whether all datasets have the latents of this run. Raises ValueError where they must and do not, and
    for latents of another VAE."""
    fields = {field.name for field in recipe.fields(*settings.sizes[0])}
    must = settings.latents == "always" or "target_latents" in fields
    if not must and (settings.latents == "never" or "target" not in fields):
        return False
    if settings.changes_pictures:
        if must:
            raise ValueError("data.flip, crop_jitter, colour_jitter: latents are of pictures as they are")
        return False
    lacking: list[str] = []
    stated_by = {name: statement_of(folder.about, name) for name, folder in folders.items()}
    vae = recipe.base.vae.identity() if any(stated_by.values()) else None
    for name, stated in stated_by.items():
        if stated is None or vae is None:
            lacking.append(f"{name} has no latents")
            continue
        stated.check_vae(vae, name)
        if (stated.factor, stated.channels) != (recipe.base.vae.factor, recipe.base.vae.channels):
            lacking.append(f"{name} has latents of {stated.channels} channels, of {stated.factor} px each")
        elif list(stated.sizes) != settings.sizes:
            ours = sizes_text(settings.sizes)
            lacking.append(f"{name} has latents of {sizes_text(stated.sizes)} px, targets are of {ours}")
    if not lacking:
        return True
    if must:
        raise ValueError(
            f"the run reads latents only, and {lacking[0]} (persona shards precompute makes them)"
        )
    if len(lacking) < len(folders) or "has latents" in lacking[0]:
        _LOG.warning("%s: photos are encoded as they come", lacking[0])
    return False


def _trained_on(name: str) -> DatasetFolder:
    """Raises DatasetError; of a URL that ends as a share would, it says how one is written."""
    try:
        return DatasetFolder(name)
    except DatasetError as error:
        url, equals, share = name.rpartition("=")
        if equals and "://" in name and share.isdecimal():
            raise DatasetError(f"{error} (a share of a URL: {url}/={share})") from None
        raise
