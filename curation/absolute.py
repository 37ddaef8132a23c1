"""Makes every local path of a pipeline absolute: workers have working directories of their own."""

import os

from curation.settings import PipelineSettings
from curation.storage import is_local, local_path


def absolute_path(path: str) -> str:
    """The path without ~ and as seen from anywhere; URLs stay as they are."""
    return os.path.abspath(os.path.expanduser(local_path(path))) if is_local(path) else path


def with_absolute_paths(pipeline: PipelineSettings) -> PipelineSettings:
    """The pipeline with absolute source.path, models.path, photos.screen and identities.index."""
    source, models, photos = pipeline.source, pipeline.models, pipeline.photos
    paths = source.path
    absolute = absolute_path(paths) if isinstance(paths, str) else [absolute_path(p) for p in paths]
    opt_out = photos.screen.opt_out and absolute_path(photos.screen.opt_out)
    forgotten = photos.screen.forgotten and absolute_path(photos.screen.forgotten)
    screen = photos.screen.model_copy(update={"opt_out": opt_out, "forgotten": forgotten})
    index = pipeline.identities.index and absolute_path(pipeline.identities.index)
    return pipeline.model_copy(
        update={
            "identities": pipeline.identities.model_copy(update={"index": index}),
            "source": source.model_copy(update={"path": absolute}),
            "models": models.model_copy(update={"path": models.path and absolute_path(models.path)}),
            "photos": photos.model_copy(update={"screen": screen}),
        }
    )
