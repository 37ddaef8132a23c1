"""Pictures during a training: held-out references, their targets, and what the model makes of them.

    OUT/pictures/step-00001000.jpg            a row for each person: reference, target, generated
    OUT/pictures/step-00001000-fixed.jpg      a row for each reference and prompt of the settings
    OUT/pictures/step-00001000-averaged….jpg  the same of the moving averages

The same people, captions and noise each time, so that two grids differ by the weights alone. Ranks draw
their share of the rows, and rank 0 writes. The recipe says what to show as reference; nothing here knows the
method or the base.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shards.reading.buckets import Size
from training.batch import Batch
from training.generation.pipeline import PLAIN_REGIONS, PersonaPipeline
from training.generation.references import reference_fields, sample_photos
from training.models.local_weights import cast
from training.ranks import Ranks
from training.recipes.recipe import Recipe
from training.run_settings import PictureSettings

Columns = tuple[Tensor, ...]
"""uint8 [rows, H, W, 3] each."""
Drawn = dict[str, list[tuple[np.ndarray, ...]]]
"""Of each grid the rows that a rank has drawn: uint8 [HEIGHT_PX, w, 3] each."""
HEIGHT_PX = 192  # of a picture in a grid
_GAP_PX = 4
_PAPER = (255, 255, 255)


def picture_grid(
    columns: Sequence[Sequence[np.ndarray] | np.ndarray], *, height_px: int = HEIGHT_PX
) -> Image.Image:
    """uint8 [rows, h, w, 3] for each column, of any sizes → RGB, every picture `height_px` high."""
    if not columns or len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise ValueError("a grid needs columns of one length, and a row")
    widths = [_width(column[0], height_px) for column in columns]
    rows = len(columns[0])
    size = (sum(widths) + _GAP_PX * (len(columns) - 1), rows * height_px + _GAP_PX * (rows - 1))
    grid = Image.new("RGB", size, _PAPER)
    left = 0
    for column, width in zip(columns, widths, strict=True):
        for row, pixels in enumerate(column):
            grid.paste(_resized(pixels, width, height_px), (left, row * (height_px + _GAP_PX)))
        left += width + _GAP_PX
    return grid


def _width(pixels: np.ndarray, height_px: int) -> int:
    return max(round(pixels.shape[1] * height_px / pixels.shape[0]), 1)


def _resized(pixels: np.ndarray, width: int, height_px: int) -> Image.Image:
    return Image.fromarray(pixels).resize((width, height_px), Image.Resampling.LANCZOS)


def people_of(batch: Batch | None, people: int, ranks: Ranks) -> dict[str, Tensor] | None:
    """The fields of the first samples that count of the first batches of all ranks, on every rank; none where
    no sample counts. All ranks call it together."""
    counting = torch.empty(0, dtype=torch.int64)
    shapes: dict[str, tuple[int, ...]] = {}
    if batch is not None:
        counting = batch.weight.nonzero().flatten()[:people].cpu()
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in batch.fields.items()}
    # Who has how many first: of many ranks no more than what is shown is to travel.
    of_ranks = ranks.gather((len(counting), shapes))
    # Of several sizes of targets that of the first rank with a sample.
    shown = next((of for count, of in of_ranks if count), None)
    if shown is None:
        return None
    before = sum(count for count, of in of_ranks[: ranks.rank] if of == shown)
    own = None
    if batch is not None and shapes == shown and before < people:
        own = {name: tensor[counting[: people - before]] for name, tensor in batch.fields.items()}
    offered = [fields for fields in ranks.gather(own) if fields is not None]
    return {name: torch.cat([fields[name] for fields in offered]) for name in shown}


class ValidationPictures:
    """Writes the grids of one step; takes the module as it is. All ranks make and call it together.

    batch    this rank's first one of held-out people, as the recipe reads it; None: there are no such grids
    folder   where rank 0 writes
    size     height and width of the pictures of the settings' references and prompts, px

    Raises ValueError, one line, for an identity_scale that the recipe's base does not know, and for a fixed
    reference that cannot be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        batch: Batch | None,
        folder: Path,
        settings: PictureSettings,
        size: Size | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        recipe.base.check_identity_scale(settings.sampling.identity_scale)
        self._recipe, self._folder, self._settings = recipe, folder, settings
        self._size, self._ranks = size, ranks or Ranks()
        self._people = people_of(batch, settings.people, self._ranks)
        self._fixed = self._fixed_references() if settings.fixed and size is not None else None
        self._vae: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, step: int, weights: str = "last") -> dict[str, Path]:
        """Returns the files that it writes, by name; `weights` says whose the module has, for these names.

        A module that is sharded is whole on every rank by then (`gathered`): nothing is sent while pictures
        are drawn. Raises RuntimeError, on all ranks, where one could not draw.
        """
        own: Drawn | str
        try:
            own = self._drawn(module)
        except (
            Exception
        ) as error:  # a sampler or a decoder raises anything; the other ranks wait to hear of it
            own = str(error) or type(error).__name__
        of_ranks = self._ranks.gather(own)
        for drawn in of_ranks:
            if isinstance(drawn, str):
                raise RuntimeError(drawn)
        if not self._ranks.first:
            return {}
        self._folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name in of_ranks[0]:
            # Rank r has rows r, r + world, ….
            rows = [drawn[name][turn] for turn in range(len(of_ranks[0][name]))
                    for drawn in of_ranks if turn < len(drawn[name])]  # fmt: skip
            parts = [f"step-{step:08d}", *[weights] * (weights != "last"), *[name] * (name != "pictures")]
            files[f"{name}/{weights}"] = file = self._folder / f"{'-'.join(parts)}.jpg"
            picture_grid(list(zip(*rows, strict=True))).save(file, quality=90)
        return files

    def _drawn(self, module: nn.Module) -> Drawn:
        """This rank's rows."""
        pipeline = self.pipeline(module)
        grids: Drawn = {}
        for name, fields in (("pictures", self._people), ("fixed", self._fixed)):
            if fields is None:
                continue
            everyone = len(next(iter(fields.values())))
            rows = list(range(self._ranks.rank, everyone, self._ranks.world))
            grids[name] = []
            if rows:
                own = {key: tensor[rows].to(pipeline.device) for key, tensor in fields.items()}
                make = self._of_people if name == "pictures" else self._of_prompts
                columns = [column.cpu().numpy() for column in make(pipeline, own, rows)]
                sizes = [(_width(column[0], HEIGHT_PX), HEIGHT_PX) for column in columns]
                for row in zip(*columns, strict=True):
                    pictures = [np.asarray(_resized(p, *size)) for p, size in zip(row, sizes, strict=True)]
                    grids[name].append(tuple(pictures))
        return grids

    def pipeline(self, module: nn.Module) -> PersonaPipeline:
        """Of the module, with a VAE of its own where the training has none."""
        if module.denoiser.vae is None and self._vae is None:
            weight = next(module.denoiser.blocks()[0].parameters())
            self._vae = cast(self._recipe.base.vae.build(), weight.dtype).to(weight.device)
        return PersonaPipeline(self._recipe, module, self._vae)

    def _of_people(
        self, pipeline: PersonaPipeline, fields: dict[str, Tensor], rows: Sequence[int]
    ) -> Columns:
        targets = self._targets(pipeline, fields)
        size = (targets.shape[1], targets.shape[2])
        made = self._made(pipeline, fields, fields["caption_ids"], size, rows)
        return (self._recipe.reference_pictures(fields), targets, made)

    def _of_prompts(
        self, pipeline: PersonaPipeline, fields: dict[str, Tensor], rows: Sequence[int]
    ) -> Columns:
        assert self._size is not None
        ids = pipeline.caption_ids([self._settings.fixed[row].prompt for row in rows])
        made = self._made(pipeline, fields, ids.to(pipeline.device), self._size, rows)
        return (self._recipe.reference_pictures(fields), made)

    def _made(
        self,
        pipeline: PersonaPipeline,
        fields: dict[str, Tensor],
        caption_ids: Tensor,
        size: Size,
        rows: Sequence[int],
    ) -> Tensor:
        """uint8 [B, H, W, 3]; a row's number is its seed."""
        conditions = pipeline.conditions(caption_ids, pipeline.identity(fields), size)
        return pipeline.generate(conditions, rows, *size, self._settings.sampling)

    def _targets(self, pipeline: PersonaPipeline, fields: dict[str, Tensor]) -> Tensor:
        """uint8 [B, H, W, 3]; cached latents as the VAE decodes them."""
        if "target" in fields:
            return fields["target"]
        return pipeline.decoded(fields["target_latents"][:, 0])

    def _fixed_references(self) -> dict[str, Tensor]:
        """The fields that are made from references, of each row of the settings."""
        rows = []
        for row in self._settings.fixed:
            dataset, _, key = row.sample.rpartition(":")
            try:
                photos = sample_photos(dataset, key)
                rows.append(reference_fields(self._recipe.reference_fields(), photos, PLAIN_REGIONS))
            except (OSError, ValueError) as error:
                raise ValueError(f"pictures.fixed: {row.sample}: {error}") from None
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
