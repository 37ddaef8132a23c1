"""PairJudges that show both photos to a vision-language model."""

from collections.abc import Sequence

from curation.call_counter import CallCounter
from curation.engine import Job
from curation.models import Models
from curation.outfits.judge import Answer, PersonRow, from_regions
from curation.settings.vlm import TransformersJudgeSettings, VllmJudgeSettings, VlmJudgeSettings
from curation.storage import join
from curation.vlm.asking import REGIONS, Questions, Reply
from curation.vlm.cache import AnswerCache
from curation.vlm.interview import Asker, VlmSession
from curation.vlm.pictures import COLUMNS
from curation.vlm.serving import served

UNCLEAR = "unclear"


class VlmJudge:
    """Same when p(yes) / (p(yes) + p(no)) reaches the cut; None where the model says unclear."""

    columns = COLUMNS
    asks_model = False  # it counts the questions that memory cannot answer by itself

    def __init__(self, settings: VlmJudgeSettings, models: Models) -> None:
        self._settings = settings
        self._model = models[settings.model]
        self._interview: VlmSession | None = None
        self._about: dict[str, VlmSession] = {}

    def join_run(self, job: Job, phase: str, calls: CallCounter) -> None:
        """Finds the photos, the memory and the model of a run."""
        cache = AnswerCache(join(job.run, phase))

        def interview(settings: VlmJudgeSettings) -> VlmSession:
            questions = Questions(settings, self._model, job.pipeline.source)
            return VlmSession("outfits", questions, cache, calls, self._asker(job, questions))

        self._interview = interview(self._settings)
        if self._settings.regions:
            for region in REGIONS:
                self._about[region] = interview(
                    self._settings.model_copy(update={"prompt": f"region-{region}"})
                )

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair; all pairs that memory does not know are asked side by side."""
        assert self._interview is not None, "join_run comes first"
        return [self._answer(reply) for reply in self._interview.ask(pairs)]

    def ask_regions(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """Five questions a pair; without the setting `regions` nothing is asked and nothing is known."""
        if not self._about:
            return [Answer(None, detail="regions are not asked about")] * len(pairs)
        replies = {region: interview.ask(pairs) for region, interview in self._about.items()}
        return [
            from_regions({region: self._answer(said[place]) for region, said in replies.items()})
            for place in range(len(pairs))
        ]

    def _answer(self, reply: Reply) -> Answer:
        if reply.error is not None:
            return Answer(None, error=reply.error)
        assert reply.p_yes is not None
        cut = self._settings.cut
        if reply.answer == UNCLEAR:
            return Answer(None, reply.p_yes, cut, "says unclear")
        return Answer(reply.p_yes >= cut, reply.p_yes, cut, f"says {reply.answer}")

    def _asker(self, job: Job, questions: Questions) -> Asker:
        raise NotImplementedError


class VllmJudge(VlmJudge):
    """Behind a vLLM server."""

    def __init__(self, settings: VllmJudgeSettings, models: Models) -> None:
        super().__init__(settings, models)

    def _asker(self, job: Job, questions: Questions) -> Asker:
        return served("judge", self._settings, questions, job)


class TransformersJudge(VlmJudge):
    """In this process."""

    def __init__(self, settings: TransformersJudgeSettings, models: Models) -> None:
        super().__init__(settings, models)

    def _asker(self, job: Job, questions: Questions) -> Asker:
        from curation.vlm.in_process import InProcessVlm

        return InProcessVlm(self._settings, questions, self._model)
