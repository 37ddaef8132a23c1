"""The judge of a run outside of the run itself: what it is asked, and what it is shown.

Answers are remembered where the run remembers its own, so a pair that either has asked is not asked again.
"""

import sys
from collections.abc import Sequence
from typing import Any, Literal

from curation.backends import JoinsRun, build_backend
from curation.engine import InlineEngine, Job
from curation.ledger import Counts
from curation.meters import CallCounter
from curation.models import Models
from curation.outfits.judge import Answer, PairJudge, PersonRow
from curation.settings import PipelineSettings
from curation.settings.vlm import VlmJudgeSettings
from curation.step import Context
from curation.vlm.pictures import PersonPictures
from curation.vlm.serving import Servers


class _Said:
    """Progress of something that is no phase: only what a person who waits should know."""

    def begin(self, phase: str, total: int, done: int, counts: Counts, workers: int = 0) -> None:
        pass

    def advance(self, rows: int, counts: Counts, work: dict[str, Any] | None = None) -> None:
        pass

    def end(self) -> None:
        pass

    def say(self, line: str) -> None:
        print(line, file=sys.stderr)


def judge_columns(pipeline: PipelineSettings, models: Models) -> tuple[str, ...]:
    """The columns of a person that the pipeline's judge reads."""
    judge: PairJudge = build_backend("judge", pipeline.outfits.judge, models)
    return judge.columns


def ask_judge(
    run: str, pipeline: PipelineSettings, models: Models, pairs: Sequence[tuple[PersonRow, PersonRow]]
) -> list[Answer]:
    """One answer a pair, in order; starts a server where one is needed. Raises PersonaError if it cannot."""
    context = Context(Job(run, pipeline, models), InlineEngine(), _Said())
    servers = Servers(context)

    def ask() -> list[Answer]:
        judge: PairJudge = build_backend("judge", pipeline.outfits.judge, models)
        if isinstance(judge, JoinsRun):
            judge.join_run(context.job, "outfits", CallCounter(None))
        return judge.ask(pairs)

    try:
        return servers.run("outfits", ask)
    finally:
        servers.close()


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
