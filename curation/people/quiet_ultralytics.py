"""Ultralytics, imported without what it does to the rest of the process."""

import os
from types import ModuleType

from PIL import Image


def quiet_ultralytics() -> ModuleType:
    """The package: offline, without installing anything, and with `PIL.Image.open` as it was.

    Its own `open` looks for a package each time that a file is no picture, and raises
    ModuleNotFoundError where there is none: then a broken photo would not be told as one.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    import ultralytics
    from ultralytics.utils import patches

    if Image.open is getattr(patches, "image_open", None):
        Image.open = patches._image_open  # what it was when ultralytics was imported, by whomever
    return ultralytics
