"""Names of files: of photos, of what lies beside one, and of the records that may be its."""

import posixpath
from collections.abc import Iterator

# Files with these endings are photos of the collection, also where their format is then refused.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".jxl",
    ]
)
_LABEL_MAP = ".regions.png"  # of our own shards, read as a collection


def ending(name: str) -> str:
    """The last ending of a name in small letters, with its dot; empty where there is none."""
    return posixpath.splitext("x" + posixpath.basename(name))[1].lower()


def is_photo(name: str) -> bool:
    """Whether a file is a photo, by its ending."""
    return ending(name) in IMAGE_SUFFIXES


def label_map_of(name: str) -> str | None:
    """The stem of the photo whose label map a file is, by its name; None where it is none."""
    return name[: -len(_LABEL_MAP)] if name.lower().endswith(_LABEL_MAP) else None


def stem_of(name: str) -> str:
    """The path without its last ending."""
    return name.rpartition(".")[0]


def key_of(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last part."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def stems(name: str) -> Iterator[str]:
    """What the record of a photo is called without its own ending, the one that says most first:
    a/b.c.jpg, a/b.c, a/b for a/b.c.jpg."""
    folder, slash, file = name.rpartition("/")
    while file:
        yield folder + slash + file
        file = file.rpartition(".")[0]
