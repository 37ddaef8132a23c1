"""Which sample a member of a tar belongs to: WebDataset's rule, and the names of our own groups."""

import re

# Of our own keys: the identity, 16 hex digits, and the letter of the outfit.
_GROUP_KEY = re.compile(r"([0-9a-f]{16})-([a-z]+)")
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


def identity_of(key: str) -> str:
    """The identity that a key of ours names; of any other sample, its key: it stands for itself."""
    ours = _GROUP_KEY.fullmatch(key)
    return ours[1] if ours else key
