"""Settings of filters that a pipeline may have: nudity by the photo, minors by the identity."""

from typing import Literal

from pydantic import Field

from curation.settings.base import Settings, backend_choice, threshold


class TransformersClassifierSettings(Settings):
    """An image classification model of transformers, as a folder with safetensors."""

    backend: Literal["transformers"] = "transformers"
    model: str
    labels: list[str] = Field(
        min_length=1, description="labels of the model that count; their probabilities are added"
    )
    batch_size: int = Field(8, ge=1, le=1024)


class NsfwSettings(Settings):
    """Rejects photos by a score of the whole photo."""

    by: backend_choice("classifier", TransformersClassifierSettings)  # type: ignore[valid-type]
    max_score: float = threshold(0.3, ge=0, le=1, description="probability of the labels that count")


class AgeSettings(Settings):
    """Rejects every person of an identity of which a photo votes that they are a minor."""

    by: backend_choice("classifier", TransformersClassifierSettings)  # type: ignore[valid-type]
    margin: float = Field(0.4, ge=0, le=2, description="share of the face's sides by which its box is grown")
    vote_from: float = threshold(
        0.3, ge=0, le=1, description="least probability of the labels that count for a vote"
    )
