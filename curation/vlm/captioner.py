"""The captioner that shows a photo to a vision-language model, behind a server or in this process."""

from collections.abc import Sequence
from typing import Any

from curation.captions.captioner import Caption
from curation.engine import Job
from curation.meters import CallCounter
from curation.models import Models
from curation.run_folder import Run
from curation.settings.vlm import VlmCaptionerSettings
from curation.vlm.asking import Questions
from curation.vlm.pictures import COLUMNS
from curation.vlm.serving import asker_of
from curation.vlm.session import AnswerCache, VlmSession


class VlmCaptioner:
    """One sentence a photo, as the model writes it."""

    columns = COLUMNS
    asks_model = False  # it counts the questions that memory cannot answer by itself

    def __init__(self, settings: VlmCaptionerSettings, models: Models) -> None:
        self._settings = settings
        self._model = models[settings.model]
        self._session: VlmSession | None = None

    def join_run(self, job: Job, phase: str, calls: CallCounter) -> None:
        """Finds the photos, the memory and the model of a run."""
        questions = Questions(self._settings, self._model, job.pipeline.source)
        asker = asker_of("captioner", self._settings, questions, self._model, job)
        cache = AnswerCache(Run(job.run).answers(phase))
        self._session = VlmSession("captions", questions, cache, calls, asker)

    def caption_each(self, people: Sequence[dict[str, Any]]) -> list[Caption]:
        """One caption a person; all that memory does not know are asked side by side."""
        assert self._session is not None, "join_run comes first"
        replies = self._session.ask([(person,) for person in people])
        return [Caption(reply.answer, reply.error) for reply in replies]
