"""Asks each question once: from memory where it was answered before, else the model."""

from collections.abc import Sequence
from typing import Protocol

from curation.meters import CallCounter
from curation.vlm.cache import AnswerCache
from curation.vlm.question import Person, Question, Questions
from curation.vlm.reply import Reply


class Listener(Protocol):
    """Is told of each question as it goes out and as its answer comes in."""

    def asking(self, question: Question) -> None:
        """The question is about to be sent for the first time."""
        ...

    def answered(self, question: Question, reply: Reply) -> None:
        """The model has answered; what is remembered here is never asked again."""
        ...


class Asker(Protocol):
    """The model, wherever it runs."""

    def ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        """One reply a question; a question that cannot be answered has a reply with `error`."""
        ...


class Interview:
    """What judge and captioner share: memory, counting, and the model behind them."""

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
