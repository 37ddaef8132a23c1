"""Asks the judge of a run about pairs of its people, outside of the run itself.

Answers are remembered where the run remembers its own, so a pair that either has asked is not asked again.
"""

import sys
from collections.abc import Sequence
from typing import Any

from curation.backends import JoinsRun, build_backend
from curation.call_counter import CallCounter
from curation.engine import InlineEngine, Job
from curation.ledger import Counts
from curation.models import Models
from curation.outfits.judge import Answer, PairJudge, PersonRow
from curation.settings import PipelineSettings
from curation.step import Context
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
