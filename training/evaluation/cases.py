"""Cases: one person, one prompt, one seed; a name for each by all that its picture depends on; and what a
score of them is, to everything that is not one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shards.reading.folder import DatasetFolder
from training.evaluation.settings import EvaluationSettings
from training.generation.references import LabelledPhoto, are_whole_person, photos_of


@dataclass(frozen=True)
class Person:
    """A held-out person: the reference is their sample's first photo.

    key, digest   of the sample, and sha256 of the reference's pixels and labels
    """

    key: str
    reference: LabelledPhoto
    digest: str

    def cut(self) -> np.ndarray:
        """uint8 [h, w, 3]: the reference around the person; what generated pictures are compared with."""
        rows = np.flatnonzero(self.reference.labels.any(1))
        columns = np.flatnonzero(self.reference.labels.any(0))
        if not len(rows):
            return self.reference.photo
        return self.reference.photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@dataclass(frozen=True)
class Case:
    """`name` changes with everything that the picture depends on."""

    name: str
    person: Person
    prompt: str
    seed: int


def people_of(dataset: str, count: int) -> list[Person]:
    """The first people of a dataset. Raises ValueError, one line, where it has fewer."""
    folder = DatasetFolder(dataset)
    if len(folder) < count:
        raise ValueError(f"{dataset}: {len(folder)} people, the evaluation wants {count}")
    found = []
    for number in range(count):
        sample = folder.read(number)
        photos = photos_of(sample.members)
        if not photos:
            raise ValueError(f"{dataset}: sample {sample.key} has no photo with a label map")
        first = photos[0]
        digest = hashlib.sha256(first.photo.tobytes() + first.labels.tobytes()).hexdigest()
        found.append(Person(sample.key, first, digest))
    return found


def cases_of(settings: EvaluationSettings, weights: str, people: list[Person]) -> list[Case]:
    """People × prompts × seeds, in that order. `weights` is as `model_name` has it."""
    made_by: dict[str, Any] = {
        "weights": weights,
        "regions": settings.regions,
        "size": [settings.height_px, settings.width_px],
        "sampling": settings.sampling.model_dump(mode="json"),
    }
    # Version 2: models that see the whole person are shown these regions alone. Of the whole person nothing
    # has changed, and the cases keep their names.
    if not are_whole_person(settings.regions):
        made_by["shown"] = 2
    found = []
    for person in people:
        for prompt in settings.prompts:
            for seed in settings.seeds:
                about = {**made_by, "person": person.digest, "prompt": prompt, "seed": seed}
                digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
                found.append(Case(digest.hexdigest()[:32], person, prompt, seed))
    return found


def weights_digest(place: Path) -> str:
    """sha256 of a published file, or of a checkpoint's record, which holds the checksums of its files."""
    file = place if place.is_file() else place / "checkpoint.json"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_name(digest: str, *, last: bool) -> str:
    """By which pictures and results know the weights that made them. A checkpoint has two sets: averages,
    and the last step's."""
    return f"{digest}-last" if last else digest


@dataclass(frozen=True)
class Pictured:
    """A case and its picture, uint8 [h, w, 3] RGB."""

    case: Case
    picture: np.ndarray


class Scorer(Protocol):
    """One kind of score; higher is better.

    name    in results, as clip_t
    says    for people
    key     changes with the model and all else that a score depends on: remembered scores have it
    """

    name: str
    says: str
    key: str

    def score(self, pictured: Sequence[Pictured]) -> list[float | None]:
        """One a picture; None where there is no answer, as where no face was found."""
        ...


class MissingScorerError(ValueError):
    """A model that is asked for and cannot be had; `str()` is one line that names it."""
