"""Captions → the ids that the two text encoders take."""

import re
import threading
from typing import Protocol

import numpy as np
import xxhash

from training.models.local_weights import WeightsError
from training.models.sdxl import TEXT_TOKENS, SdxlSettings

_WORD = re.compile(r"\w+|[^\w\s]")


class Tokenise(Protocol):
    """Called from several threads at a time."""

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [2, 77], a row for each text encoder; longer captions are cut."""
        ...


class ClipTokenizers:
    """The tokenizers of a local diffusers folder (`tokenizer`, `tokenizer_2`). Raises WeightsError."""

    def __init__(self, folder: str) -> None:
        from transformers import CLIPTokenizer  # takes seconds, and not all need it

        try:
            self._tokenizers = [
                CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)
                for part in ("tokenizer", "tokenizer_2")
            ]
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder}: no tokenizers: {str(error).splitlines()[0]}") from None
        # Padding and truncation are state of a tokenizer: two threads must not set it at once.
        self._lock = threading.Lock()

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [2, 77]."""
        with self._lock:
            rows = [
                tokenizer(caption, max_length=TEXT_TOKENS, padding="max_length", truncation=True).input_ids
                for tokenizer in self._tokenizers
            ]
        return np.array(rows, np.int64)


def tokeniser_of(sdxl: SdxlSettings) -> Tokenise:
    """The folder's tokenizers, or hashed words where the text encoders have random weights."""
    if sdxl.folder is not None:
        return ClipTokenizers(sdxl.folder)
    return HashedWords(min(sdxl.text.vocabulary, sdxl.text_2.vocabulary))


class HashedWords:
    """Ids of words by their hash, for text encoders with random weights, which know no vocabulary.

    0 is padding, 1 begins, the largest id ends the text: its place is where encoders pool.
    """

    def __init__(self, vocabulary: int) -> None:
        if vocabulary < 4:
            raise ValueError(f"a vocabulary of {vocabulary} has no room for words")
        self._vocabulary = vocabulary

    def __call__(self, caption: str) -> np.ndarray:
        """int64 [2, 77], twice the same."""
        words = _WORD.findall(caption.lower())[: TEXT_TOKENS - 2]
        known = [2 + xxhash.xxh3_64_intdigest(word.encode()) % (self._vocabulary - 3) for word in words]
        ids = np.zeros(TEXT_TOKENS, np.int64)
        ids[: len(known) + 2] = [1, *known, self._vocabulary - 1]
        return np.stack([ids, ids])
