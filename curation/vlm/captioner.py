"""Captioners that show a photo to a vision-language model."""

from collections.abc import Sequence
from typing import Any

from curation.call_counter import CallCounter
from curation.captions.phase import Caption
from curation.engine import Job
from curation.models import Models
from curation.settings.vlm import (
    TransformersCaptionerSettings,
    VllmCaptionerSettings,
    VlmCaptionerSettings,
)
from curation.storage import join
from curation.vlm.asking import Questions
from curation.vlm.cache import AnswerCache
from curation.vlm.interview import Asker, VlmSession
from curation.vlm.pictures import COLUMNS
from curation.vlm.serving import served


class VlmCaptioner:
    """One sentence a photo, as the model writes it."""

    columns = COLUMNS
    asks_model = False  # it counts the questions that memory cannot answer by itself

    def __init__(self, settings: VlmCaptionerSettings, models: Models) -> None:
        self._settings = settings
        self._model = models[settings.model]
        self._interview: VlmSession | None = None

    def join_run(self, job: Job, phase: str, calls: CallCounter) -> None:
        """Finds the photos, the memory and the model of a run."""
        questions = Questions(self._settings, self._model, job.pipeline.source)
        cache = AnswerCache(join(job.run, phase))
        self._interview = VlmSession("captions", questions, cache, calls, self._asker(job, questions))

    def caption_each(self, people: Sequence[dict[str, Any]]) -> list[Caption]:
        """One caption a person; all that memory does not know are asked side by side."""
        assert self._interview is not None, "join_run comes first"
        replies = self._interview.ask([(person,) for person in people])
        return [Caption(reply.answer, reply.error) for reply in replies]

    def _asker(self, job: Job, questions: Questions) -> Asker:
        raise NotImplementedError


class VllmCaptioner(VlmCaptioner):
    """Behind a vLLM server."""

    def __init__(self, settings: VllmCaptionerSettings, models: Models) -> None:
        super().__init__(settings, models)

    def _asker(self, job: Job, questions: Questions) -> Asker:
        return served("captioner", self._settings, questions, job)


class TransformersCaptioner(VlmCaptioner):
    """In this process."""

    def __init__(self, settings: TransformersCaptionerSettings, models: Models) -> None:
        super().__init__(settings, models)

    def _asker(self, job: Job, questions: Questions) -> Asker:
        from curation.vlm.in_process import InProcessVlm

        return InProcessVlm(self._settings, questions, self._model)
