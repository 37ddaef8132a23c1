"""Pictures during a training: held-out references, their targets, and what the model makes of them.

    OUT/pictures/step-00001000.jpg     a row for each person: reference, target, generated

The same people, captions and noise each time, so that two grids differ by the weights alone. The
recipe says what to show as reference; nothing here knows the method or the base.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.batch import Batch
from training.generation.pipeline import PersonaPipeline
from training.models.local_weights import cast
from training.recipes.recipe import Recipe
from training.run_settings import PictureSettings

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
    """Writes a grid a call; takes the module as it is, weights of the last step.

    batch    of held-out people, as the recipe reads it
    folder   None writes nothing: all ranks make pictures, because a sharded model needs all, and one writes

    Raises ValueError, one line, for an identity_scale that the recipe's base does not know.
    """

    def __init__(self, recipe: Recipe, batch: Batch, folder: Path | None, settings: PictureSettings) -> None:
        recipe.base.check_identity_scale(settings.sampling.identity_scale)
        self._recipe, self._folder, self._settings = recipe, folder, settings
        self._batch = batch
        self._vae: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, step: int) -> Path | None:
        """Returns the file, if it writes one."""
        count = min(self._settings.people, len(self._batch))
        pipeline = self.pipeline(module)
        fields = {name: tensor[:count].to(pipeline.device) for name, tensor in self._batch.fields.items()}
        targets = self._targets(pipeline, fields)
        height, width = targets.shape[1:3]
        identity = pipeline.identity(fields)
        conditions = pipeline.conditions(fields["caption_ids"], identity, (height, width))
        made = pipeline.generate(conditions, range(count), height, width, self._settings.sampling)
        columns = (self._recipe.reference_pictures(fields), targets, made)
        if self._folder is None:
            return None
        file = self._folder / f"step-{step:08d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture_grid([column.cpu().numpy() for column in columns]).save(file, quality=90)
        return file

    def pipeline(self, module: nn.Module) -> PersonaPipeline:
        """Of the module, with a VAE of its own where the training has none."""
        if module.denoiser.vae is None and self._vae is None:
            weight = next(module.denoiser.blocks()[0].parameters())
            self._vae = cast(self._recipe.base.vae.build(), weight.dtype).to(weight.device)
        return PersonaPipeline(self._recipe, module, self._vae)

    def _targets(self, pipeline: PersonaPipeline, fields: dict[str, Tensor]) -> Tensor:
        """uint8 [B, H, W, 3]; cached latents as the VAE decodes them."""
        if "target" in fields:
            return fields["target"]
        return pipeline.decoded(fields["target_latents"][:, 0])
