"""Face similarity: the embedder of whoever parses photos, on the reference and on the generated picture."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.evaluation.scorer import Pictured

EmbedFaces = Callable[[Sequence[Path]], list[np.ndarray | None]]
"""Files → float32 [n] of length 1 for the largest person's face of each; None where none is found."""


class FaceSimilarity:
    """Cosine of the two faces; None where either picture shows none.

    embed   of files, because detection begins with a file
    key     of the models behind it
    """

    name, says = "face", "face, picture with reference"

    def __init__(self, embed: EmbedFaces, key: str) -> None:
        self._embed, self.key = embed, f"face {key}"

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """−1 to 1."""
        people = {one.case.person.digest: one.case.person.reference.photo for one in pictured}
        found = self._faces([*people.values(), *(one.picture for one in pictured)])
        references = dict(zip(people, found, strict=False))
        scores: list[float | None] = []
        for one, made in zip(pictured, found[len(people) :], strict=True):
            reference = references[one.case.person.digest]
            scores.append(None if made is None or reference is None else float(reference @ made))
        return scores

    def _faces(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        with tempfile.TemporaryDirectory(prefix="persona-faces-") as folder:
            files = [Path(folder) / f"{number:05d}.png" for number in range(len(pictures))]
            for file, picture in zip(files, pictures, strict=True):
                Image.fromarray(picture).save(file)
            return self._embed(files)
