"""What the name of a member of a tar says: its sample by WebDataset's rule, and whether it is a photo."""

import re
from collections.abc import Mapping

# Of our own keys: the identity, 16 hex digits, and the letter of the outfit.
_GROUP_KEY = re.compile(r"([0-9a-f]{16})-([a-z]+)")
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_META = re.compile(r"__[^/]*__(/|$)")


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a member's name; None for what WebDataset passes over.

    The key is the path up to the first dot of its last part, the suffix what follows that dot.
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    if not dot or not stem or _META.match(name):
        return None
    return folder + slash + stem, suffix


def is_picture(suffix: str) -> bool:
    """Whether a member is a photo; label maps are none."""
    return suffix.rsplit(".", 1)[-1].lower() in IMAGE_SUFFIXES and not suffix.endswith("regions.png")


def identity_of(key: str) -> str:
    """The identity that a key of ours names; of any other sample, its key: it stands for itself."""
    ours = _GROUP_KEY.fullmatch(key)
    return ours[1] if ours else key


def member_named(members: Mapping[str, bytes], suffix: str) -> bytes | None:
    """The member of a sample with this suffix, in whatever case: others write `JPG` and `LEFT.JSON` too, as
    WebDataset's own reader takes them."""
    data = members.get(suffix)
    if data is None:
        wanted = suffix.lower()
        data = next((data for name, data in members.items() if name.lower() == wanted), None)
    return data
