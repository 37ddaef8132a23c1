"""Cosines of embeddings: CLIP-T, CLIP-I and DINO from local folders, faces by whoever parses photos."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.evaluation.cases import MissingScorerError, Pictured

_BATCH = 16


class ClipText:
    """CLIP-T: the generated picture with its prompt."""

    name, says = "clip_t", "CLIP, picture with prompt"

    def __init__(self, clip: "Clip") -> None:
        self._clip = clip
        self.key = f"clip_t {clip.digest}"

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """Cosines, −1 to 1."""
        prompts = [one.case.prompt for one in pictured]
        return _cosines(self._clip.pictures([one.picture for one in pictured]), self._clip.texts(prompts))


class ImageSimilarity:
    """CLIP-I or DINO: the generated picture with the reference around the person."""

    def __init__(
        self, name: str, says: str, embed: Callable[[list[np.ndarray]], Tensor], digest: str
    ) -> None:
        self.name, self.says, self.key = name, says, f"{name} {digest}"
        self._embed = embed

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """Cosines, −1 to 1. A reference is embedded once for all its pictures."""
        people = {one.case.person.digest: one.case.person.cut() for one in pictured}
        embedded = dict(zip(people, self._embed(list(people.values())), strict=True))
        references = torch.stack([embedded[one.case.person.digest] for one in pictured])
        return _cosines(self._embed([one.picture for one in pictured]), references)


class _LocalModel:
    """A model of transformers in a local folder, and its processor; each is loaded when it is first asked.

    Raises MissingScorerError where there is none.
    """

    _model_class: ClassVar[str]
    _processor_class: ClassVar[str]

    def __init__(self, folder: str) -> None:
        self._folder, self.digest = folder, folder_digest(folder)

    @cached_property
    def _model(self) -> Any:
        return self._loaded(self._model_class).eval()

    @cached_property
    def _processor(self) -> Any:
        return self._loaded(self._processor_class)

    def _loaded(self, kind: str) -> Any:
        import transformers

        try:
            return getattr(transformers, kind).from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = next(
                (line.strip() for line in str(error).splitlines() if line.strip()), "cannot be read"
            )
            raise MissingScorerError(f"{self._folder}: {reason}") from None


class Clip(_LocalModel):
    """A CLIPModel: pictures and texts in one space."""

    _model_class, _processor_class = "CLIPModel", "CLIPProcessor"

    @torch.no_grad()
    def pictures(self, pictures: list[np.ndarray]) -> Tensor:
        """[n, width]."""
        return _batched(
            pictures,
            lambda part: self._model.get_image_features(**self._processor(images=part, return_tensors="pt")),
        )

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """[n, width]; longer texts are cut to CLIP's 77 tokens."""
        longest = self._model.config.text_config.max_position_embeddings
        inputs = self._processor(
            text=texts, return_tensors="pt", padding=True, truncation=True, max_length=longest
        )
        return _tensor(self._model.get_text_features(**inputs))


class Dino(_LocalModel):
    """A DINOv2; embeddings are class tokens."""

    _model_class, _processor_class = "AutoModel", "AutoImageProcessor"

    @torch.no_grad()
    def pictures(self, pictures: list[np.ndarray]) -> Tensor:
        """[n, width]."""
        return _batched(
            pictures,
            lambda part: self._model(**self._processor(images=part, return_tensors="pt")).last_hidden_state[
                :, 0
            ],
        )


def folder_digest(folder: str) -> str:
    """sha256 over names and sizes of a folder's files and the content of its configs.

    Weights of gigabytes are told by their size: a rerun must not read them.
    """
    place = Path(folder)
    if not (place / "config.json").is_file():
        raise MissingScorerError(f"{folder}: no config.json: not a model's folder")
    digest = hashlib.sha256()
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(place).as_posix()} {file.stat().st_size}\n".encode())
        if file.suffix == ".json":
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _batched(pictures: list[np.ndarray], embed: Callable[[list[Image.Image]], Any]) -> Tensor:
    images = [Image.fromarray(picture) for picture in pictures]
    parts = [_tensor(embed(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
    return torch.cat(parts)


def _tensor(found: Any) -> Tensor:
    """transformers 5 wraps features in an output, 4 gave the tensor."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _cosines(a: Tensor, b: Tensor) -> list[float | None]:
    return [float(x) for x in torch.nn.functional.cosine_similarity(a.float(), b.float())]


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
