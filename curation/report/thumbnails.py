"""Small pictures of the subjects that galleries show, in packs that the page loads as they come into view."""

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.photos.decode import decode_rgb
from curation.report.data_files import DataFiles, Pages
from curation.report.scores import Subject
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.sources.photo_bytes import PhotoBytes

HEIGHT_PX = 200
_WIDEST = 1.4  # a wider picture is cut to this many times its height
_AROUND = 0.06  # of a person's box, on each side
_QUALITY = 70
_PACK = 24
_PLACE = ["photo_id", "uri", "offset", "length", "row", "width", "height", "orientation"]

Cut = tuple[Subject, Sequence[int] | None]
"""A subject and its box in px of the upright photo; None: the whole photo."""


def write_thumbnails(
    files: DataFiles, run: str, pipeline: PipelineSettings, wanted: Mapping[str, Sequence[Cut]]
) -> dict[str, Any]:
    """Writes the thumbnails that can be made of `wanted` ({photo_id: cuts}).

    Returns what the page must know: {name, size, count, of}, where `of` is flat (row, person), one a
    thumbnail. A photo that cannot be read, or is not the one that was curated, has none.
    """
    packs = Pages(files, "thumbs", _PACK)
    source = PhotoBytes(pipeline.source)
    screen = pipeline.photos.screen
    subjects: list[int] = []
    for reference in _references(run, wanted):
        if (reference["width"] or 0) * (reference["height"] or 0) > screen.max_pixels:
            continue
        try:
            data = source.read(reference, int(screen.max_file_mib * 2**20))
            if hashlib.sha256(data).hexdigest() != reference["photo_id"]:
                continue
            about_px = _about_px(reference, wanted[reference["photo_id"]])
            photo = decode_rgb(data, about_px, told=reference["orientation"])
        except (OSError, EOFError, ValueError):  # what the run could not read, a report cannot show
            continue
        scale = photo.shape[1] / reference["width"]
        for subject, box in wanted[reference["photo_id"]]:
            packs.add(_thumbnail(photo, box, scale))
            subjects += subject
    return {**packs.close(), "of": subjects}


def _references(run: str, wanted: Mapping[str, Sequence[Cut]]) -> Iterator[dict[str, Any]]:
    """Where the wanted photos lie, each once, in the order of the run."""
    if not wanted:
        return
    tables = Run(run).people_photos.by_index(_PLACE)
    tables = tables if len(tables) else Run(run).photos_so_far().by_index(_PLACE)
    seen: set[str] = set()
    for table in tables.values():
        ids = table["photo_id"].to_pylist()
        rows = [row for row, photo_id in enumerate(ids) if photo_id in wanted]
        for reference in table.take(pa.array(rows, pa.int64())).to_pylist():
            if reference["photo_id"] not in seen and reference["width"]:
                seen.add(reference["photo_id"])
                yield reference


def _about_px(reference: Mapping[str, Any], cuts: Sequence[Cut]) -> int:
    """The longer side at which every cut still has the height of a thumbnail."""
    least = min(max(box[3] - box[1], 1) if box is not None else reference["height"] for _, box in cuts)
    return int(max(reference["width"], reference["height"]) * min(HEIGHT_PX / least, 1.0)) + 1


def _thumbnail(photo: np.ndarray, box: Sequence[int] | None, scale: float) -> str:
    """A JPEG in base64; `scale` is px of `photo` for one of the box's."""
    image = Image.fromarray(photo)
    if box is not None:
        x0, y0, x1, y1 = (value * scale for value in box)
        x, y = _AROUND * (x1 - x0), _AROUND * (y1 - y0)
        left, top = max(int(x0 - x), 0), max(int(y0 - y), 0)
        right, bottom = min(int(x1 + x), image.width), min(int(y1 + y), image.height)
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    most = round(_WIDEST * image.height)
    if image.width > most:
        left = (image.width - most) // 2
        image = image.crop((left, 0, left + most, image.height))
    height = min(HEIGHT_PX, image.height)
    width = max(round(image.width * height / image.height), 1)
    sink = io.BytesIO()
    image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0).save(
        sink, "JPEG", quality=_QUALITY
    )
    return base64.b64encode(sink.getvalue()).decode()
