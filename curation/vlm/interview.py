"""A session with a model: each question is asked once, answers from before come from memory."""

from collections.abc import Sequence
from typing import Protocol

from curation.call_counter import CallCounter
from curation.vlm.asking import Question, Questions, Reply
from curation.vlm.cache import AnswerCache
from curation.vlm.pictures import Person


class Listener(Protocol):
    """Notified of each question when it is sent, and of its answer when it arrives."""

    def asking(self, question: Question) -> None:
        """The question is about to be sent for the first time."""
        ...

    def answered(self, question: Question, reply: Reply) -> None:
        """The model has answered; the answer is remembered and never asked for again."""
        ...


class Asker(Protocol):
    """The model, wherever it runs."""

    def ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        """One reply a question; a question that cannot be answered has a reply with `error`."""
        ...


class VlmSession:
    """A session of a judge or captioner with its model: remembered answers, counts, and who answers."""

    def __init__(
        self, stage: str, questions: Questions, cache: AnswerCache, calls: CallCounter, asker: Asker
    ) -> None:
        self._stage = stage
        self._questions = questions
        self._cache = cache
        self._calls = calls
        self._asker = asker

    def ask(self, groups: Sequence[tuple[Person, ...]]) -> list[Reply]:
        """One reply for each group of people that a question shows; equal questions are asked once."""
        questions = [self._questions.about(people) for people in groups]
        self._cache.refresh()
        known = {question.key: self._cache.get(question.key) for question in questions}
        new = list({q.key: q for q in questions if known[q.key] is None}.values())
        if new:
            try:
                replies = self._asker.ask(new, self)
            finally:
                self._cache.flush()
            known |= {question.key: reply for question, reply in zip(new, replies, strict=True)}
        return [known[question.key] or Reply(None, error="not asked") for question in questions]

    def asking(self, question: Question) -> None:
        """Counts the call."""
        self._calls.asked(self._stage, [question.name])

    def answered(self, question: Question, reply: Reply) -> None:
        """Remembers the answer before anything else happens."""
        self._cache.put(question.key, reply)
