"""Makes every local path of a pipeline absolute: workers have working directories of their own."""

import os
from typing import Any, TypeVar

from curation.settings.base import Settings, is_path
from curation.storage import is_local, local_path

Some = TypeVar("Some", bound=Settings)


def absolute_path(path: str) -> str:
    """The path without ~ and as seen from anywhere; URLs stay as they are."""
    return os.path.abspath(os.path.expanduser(local_path(path))) if is_local(path) else path


def with_absolute_paths(settings: Some) -> Some:
    """The settings, and those inside of them, with every field made with `path()` absolute."""
    changed: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            changed[name] = with_absolute_paths(value)
        elif value and is_path(info):
            changed[name] = (
                absolute_path(value) if isinstance(value, str) else list(map(absolute_path, value))
            )
    return settings.model_copy(update=changed)
