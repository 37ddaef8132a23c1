"""Of which judge a calibration is: the model, the prompt and the layout, as one short hash and in words."""

from typing import Any

from curation.errors import ConfigError
from curation.fingerprint import fingerprint
from curation.models import Models
from curation.settings import PipelineSettings
from curation.settings.outfits import ClustersStrategy
from curation.settings.vlm import VlmJudgeSettings


def judge_identity(pipeline: PipelineSettings, models: Models) -> str:
    """16 hex digits over all that the scores depend on: weights, prompt, layout, stored colours.

    Whether vLLM or transformers runs the weights is left out: their scores differ by rounding.
    """
    judge = pipeline.outfits.judge
    colours = pipeline.people.appearance.measurement()
    if isinstance(judge, VlmJudgeSettings):
        from curation.vlm.asking import PROMPTS
        from curation.vlm.pictures import JPEG_QUALITY, VERSION

        prompt = PROMPTS[judge.prompt]
        layout = [VERSION, JPEG_QUALITY, judge.canvas_px, judge.background, judge.margin]
        return fingerprint(["vlm", models[judge.model].sha256, prompt.text, prompt.schema, layout, colours])
    model = getattr(judge, "model", None)
    weights = models[model].sha256 if model else None
    return fingerprint([judge.backend, weights, judge.measurement(), colours])


def judge_in_words(pipeline: PipelineSettings, models: Models) -> dict[str, Any]:
    """For people, what the hash cannot say: `backend`, `model` and its `sha256`, `prompt`, `layout`.

    None is what a judge does not have.
    """
    judge = pipeline.outfits.judge
    model = getattr(judge, "model", None)
    layout = None
    if isinstance(judge, VlmJudgeSettings):
        layout = {"canvas_px": judge.canvas_px, "background": judge.background, "margin": judge.margin}
    return {
        "backend": judge.backend,
        "model": model,
        "sha256": models[model].sha256 if model else None,
        "prompt": getattr(judge, "prompt", None),
        "layout": layout,
    }


def check_calibration(pipeline: PipelineSettings, models: Models) -> None:
    """Raises ConfigError where the strategy's calibration is of another judge than the pipeline's."""
    strategy = pipeline.outfits.strategy
    if not isinstance(strategy, ClustersStrategy) or strategy.calibration is None:
        return
    own = judge_identity(pipeline, models)
    if strategy.calibration.of != own:
        raise ConfigError(
            f"outfits.strategy.calibration.of: {strategy.calibration.of} is of another judge: model, prompt "
            f"and layout of this pipeline are {own}; fit it anew with `persona judge calibrate`"
        )
