"""People as a run's judge is shown them, on pages where people look at the same pairs."""

from typing import Literal

from curation.settings import PipelineSettings
from curation.settings.vlm import VlmJudgeSettings
from curation.vlm.pictures import PersonPictures

_CANVAS_PX = (448, 896)  # where the judge looks at no picture


def judge_pictures(
    pipeline: PipelineSettings, least_height_px: int = 1, most_height_px: int = 4096
) -> PersonPictures:
    """Pictures with the judge's background and margin, and its canvas scaled into these heights."""
    judge = pipeline.outfits.judge
    (wide, high), margin = _CANVAS_PX, 0.0
    background: Literal["keep", "grey"] = "grey"
    if isinstance(judge, VlmJudgeSettings):
        (wide, high), background, margin = judge.canvas_px, judge.background, judge.margin
    scale = min(max(high, least_height_px), most_height_px) / high
    return PersonPictures(pipeline.source, (round(wide * scale), round(high * scale)), background, margin)
