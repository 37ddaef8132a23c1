"""What an evaluation is made of: who, which prompts and seeds, how pictures are made, what scores them."""

from typing import Any, Literal

from pydantic import Field, model_validator

from training.run_settings import SamplingSettings
from training.settings import Settings, read_config


class VlmQuestion(Settings):
    """One question to a vision-language model about a picture."""

    text: str = Field(description="the question; `{prompt}` stands for the picture's prompt")
    pictures: tuple[Literal["reference", "generated"], ...] = Field(
        strict=False, min_length=1, description="that are shown, in this order"
    )
    answer: Literal["score", "yes_no"] = Field("score", description="0 to 10, or 10 for yes and 0 for no")
    side_px: int = Field(512, ge=16, description="a picture is sent with at most so many px along a side")


# In the manner of DreamBench++ (arXiv 2406.16855), which asks for 0 to 4; the paper reports 0 to 10.
IDENTITY = VlmQuestion(
    text="The first picture shows a person. The second picture was generated and should show the same "
    "person in the same clothes. Compare face, hair, body and every garment with its colour and pattern; "
    "pose, expression and surroundings may differ. How well does the second picture keep the person? "
    "Answer with one whole number from 0 (another person in other clothes) to 10 (no difference).",
    pictures=("reference", "generated"),
)
TEXT = VlmQuestion(
    text="The picture was generated from this description: {prompt} Judge whether every part of the "
    "description is shown, whoever the person is. Answer with one whole number from 0 (nothing of it) to "
    "10 (all of it).",
    pictures=("generated",),
)


class VlmSettings(Settings):
    """An OpenAI-compatible server that answers questions of identity and of text."""

    endpoint: str = Field(description="as http://127.0.0.1:8000; with /v1 behind it too")
    model: str = Field(description="as the server names it")
    identity: VlmQuestion | None = IDENTITY
    text: VlmQuestion | None = TEXT
    max_tokens: int = Field(8, ge=1, description="of an answer")
    requests: int = Field(8, ge=1, description="in flight at a time")
    timeout_s: float = Field(120, gt=0, description="of one question")
    retries: int = Field(3, ge=0, le=20, description="times a question is sent again")


class ScorerSettings(Settings):
    """Local folders of transformers' models; one that is not given is not scored, and the results say so."""

    clip: str | None = Field(None, description="CLIPModel with its tokenizer: CLIP-T and CLIP-I")
    dino: str | None = Field(None, description="DINOv2")
    face: bool = Field(False, description="the face embedder of the pipeline that parses photos")
    vlm: VlmSettings | None = Field(None, description="a server that judges identity and text")


class EvaluationSettings(Settings):
    """One evaluation. Equal settings on equal weights and people give equal pictures."""

    prompts: tuple[str, ...] = Field(strict=False, min_length=1, description="each for each person")
    people: int = Field(16, ge=1, description="the first so many samples of the dataset")
    seeds: tuple[int, ...] = Field((0,), strict=False, min_length=1, description="a picture for each")
    regions: tuple[str, ...] = Field(
        ("head", "torso", "legs", "shoes"), strict=False, min_length=1, description="of the reference"
    )
    height_px: int = Field(1024, ge=32, description="of pictures")
    width_px: int = Field(1024, ge=32, description="of pictures")
    sampling: SamplingSettings = SamplingSettings()
    scores: ScorerSettings = ScorerSettings()
    resamples: int = Field(2000, ge=100, description="of people, for the confidence intervals")

    @model_validator(mode="after")
    def _differ(self) -> "EvaluationSettings":
        if len(set(self.prompts)) < len(self.prompts) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("prompts and seeds must each differ")
        return self


def read_evaluation(config: str, changes: dict[str, Any]) -> EvaluationSettings:
    """An evaluation by its name or path, with values set at dotted paths. Raises ValueError, one line."""
    return read_config(EvaluationSettings, "training.evaluation", config, changes, "evaluation")
