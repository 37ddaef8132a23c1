"""Pictures during a training: held-out references, their targets, and what the model makes of them.

    OUT/pictures/step-00001000.jpg            a row for each person: reference, target, generated
    OUT/pictures/step-00001000-fixed.jpg      a row for each reference and prompt of the settings
    OUT/pictures/step-00001000-averaged….jpg  the same of the moving averages

The same people, captions and noise each time, so that two grids differ by the weights alone. The
recipe says what to show as reference; nothing here knows the method or the base.
"""

from collections.abc import Mapping, Sequence
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
from training.recipes.recipe import Recipe
from training.run_settings import PictureSettings

Columns = tuple[Tensor, ...]
"""uint8 [rows, H, W, 3] each."""
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


class ValidationPictures:
    """Writes the grids of one step; takes the module as it is.

    batch    of held-out people, as the recipe reads it; None: there are no such grids
    folder   None writes nothing: all ranks make pictures, because a sharded model needs all, and one writes
    size     height and width of the pictures of the settings' references and prompts, px

    Raises ValueError, one line, for an identity_scale that the recipe's base does not know, and for a fixed
    reference that cannot be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        batch: Batch | None,
        folder: Path | None,
        settings: PictureSettings,
        size: Size | None = None,
    ) -> None:
        recipe.base.check_identity_scale(settings.sampling.identity_scale)
        self._recipe, self._folder, self._settings = recipe, folder, settings
        self._batch, self._size = batch, size
        self._fixed = self._fixed_references() if settings.fixed and size is not None else None
        self._vae: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, step: int, weights: str = "last") -> dict[str, Path]:
        """Returns the files that it writes, by name; `weights` says whose the module has, for these names."""
        pipeline = self.pipeline(module)
        grids = {}
        if self._batch is not None:
            grids["pictures"] = self._of_people(pipeline, self._batch)
        if self._fixed is not None:
            grids["fixed"] = self._of_prompts(pipeline, self._fixed)
        if self._folder is None:
            return {}
        self._folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, columns in grids.items():
            parts = [f"step-{step:08d}", *[weights] * (weights != "last"), *[name] * (name != "pictures")]
            files[f"{name}/{weights}"] = file = self._folder / f"{'-'.join(parts)}.jpg"
            picture_grid([column.cpu().numpy() for column in columns]).save(file, quality=90)
        return files

    def pipeline(self, module: nn.Module) -> PersonaPipeline:
        """Of the module, with a VAE of its own where the training has none."""
        if module.denoiser.vae is None and self._vae is None:
            weight = next(module.denoiser.blocks()[0].parameters())
            self._vae = cast(self._recipe.base.vae.build(), weight.dtype).to(weight.device)
        return PersonaPipeline(self._recipe, module, self._vae)

    def _of_people(self, pipeline: PersonaPipeline, batch: Batch) -> Columns:
        count = min(self._settings.people, len(batch))
        fields = {name: tensor[:count].to(pipeline.device) for name, tensor in batch.fields.items()}
        targets = self._targets(pipeline, fields)
        made = self._made(pipeline, fields, fields["caption_ids"], (targets.shape[1], targets.shape[2]))
        return (self._recipe.reference_pictures(fields), targets, made)

    def _of_prompts(self, pipeline: PersonaPipeline, references: Mapping[str, Tensor]) -> Columns:
        assert self._size is not None
        fields = {name: tensor.to(pipeline.device) for name, tensor in references.items()}
        ids = pipeline.caption_ids([row.prompt for row in self._settings.fixed])
        made = self._made(pipeline, fields, ids.to(pipeline.device), self._size)
        return (self._recipe.reference_pictures(fields), made)

    def _made(
        self, pipeline: PersonaPipeline, fields: dict[str, Tensor], caption_ids: Tensor, size: Size
    ) -> Tensor:
        """uint8 [B, H, W, 3], a seed for each row."""
        conditions = pipeline.conditions(caption_ids, pipeline.identity(fields), size)
        return pipeline.generate(conditions, range(len(caption_ids)), *size, self._settings.sampling)

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
