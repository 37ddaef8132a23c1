"""Captions → the ids that a base's text encoders take."""

import re
from typing import Protocol

import numpy as np
import xxhash

_WORD = re.compile(r"\w+|[^\w\s]")


class Tokenise(Protocol):
    """Called from several threads at a time."""

    def __call__(self, caption: str) -> np.ndarray:
        """int64 of the shape of the base's field caption_ids; longer captions are cut."""
        ...


class HashedWords:
    """Ids of words by their hash, for text encoders with random weights, which know no vocabulary.

    vocabulary   ids are below it
    shape        of what is returned: […, tokens]; all rows are the same

    0 is padding, 1 begins, the largest id ends the text: its place is where encoders pool.
    """

    def __init__(self, vocabulary: int, shape: tuple[int, ...]) -> None:
        if vocabulary < 4:
            raise ValueError(f"a vocabulary of {vocabulary} has no room for words")
        self._vocabulary, self._shape = vocabulary, shape

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [*shape]."""
        tokens = self._shape[-1]
        words = _WORD.findall(caption.lower())[: tokens - 2]
        known = [2 + xxhash.xxh3_64_intdigest(word.encode()) % (self._vocabulary - 3) for word in words]
        ids = np.zeros(tokens, np.int64)
        ids[: len(known) + 2] = [1, *known, self._vocabulary - 1]
        return np.broadcast_to(ids, self._shape).copy()
