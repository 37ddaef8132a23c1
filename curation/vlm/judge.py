"""The PairJudge that shows both photos to a vision-language model, behind a server or in this process."""

from collections.abc import Sequence

from curation.engine import Job
from curation.meters import CallCounter
from curation.models import Models
from curation.outfits.judge import JUDGED_REGIONS, Answer, PersonRow, from_regions
from curation.run_folder import Run
from curation.settings.vlm import VlmJudgeSettings
from curation.vlm.asking import Questions, Reply
from curation.vlm.pictures import COLUMNS
from curation.vlm.serving import asker_of
from curation.vlm.session import AnswerCache, VlmSession

UNCLEAR = "unclear"


class VlmJudge:
    """Same when p(yes) / (p(yes) + p(no)) reaches the cut; None where the model says unclear."""

    columns = COLUMNS
    asks_model = False  # it counts the questions that memory cannot answer by itself

    def __init__(self, settings: VlmJudgeSettings, models: Models) -> None:
        self._settings = settings
        self._model = models[settings.model]
        self._session: VlmSession | None = None
        self._about: dict[str, VlmSession] = {}

    def join_run(self, job: Job, phase: str, calls: CallCounter) -> None:
        """Finds the photos, the memory and the model of a run."""
        cache = AnswerCache(Run(job.run).answers(phase))

        def session(settings: VlmJudgeSettings) -> VlmSession:
            questions = Questions(settings, self._model, job.pipeline.source)
            return VlmSession(
                "outfits", questions, cache, calls, asker_of("judge", settings, questions, self._model, job)
            )

        self._session = session(self._settings)
        if self._settings.regions:
            for region in JUDGED_REGIONS:
                self._about[region] = session(
                    self._settings.model_copy(update={"prompt": f"region-{region}"})
                )

    def ask(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """One answer a pair; all pairs that memory does not know are asked side by side."""
        assert self._session is not None, "join_run comes first"
        return [self._answer(reply) for reply in self._session.ask(pairs)]

    def ask_regions(self, pairs: Sequence[tuple[PersonRow, PersonRow]]) -> list[Answer]:
        """Five questions a pair; without the setting `regions` nothing is asked and nothing is known."""
        if not self._about:
            return [Answer(None, detail="regions are not asked about")] * len(pairs)
        replies = {region: session.ask(pairs) for region, session in self._about.items()}
        return [
            from_regions({region: self._answer(of_region[place]) for region, of_region in replies.items()})
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
