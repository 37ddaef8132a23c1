"""A session with a model: each question is asked once, and answers are remembered in the run folder.

Answers lie beside a phase's fragments. Every worker appends to a file of its own and reads those of all
others, so there is no lock. On a local disk an answer is in its file before the next is read, and outlives
a kill. An object store cannot append: there, answers are put in lots, and a killed worker asks its last lot
again.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from curation.fingerprint import fingerprint
from curation.meters import CallCounter
from curation.run_tables import AnswerFiles
from curation.storage import is_local, local_path, read_bytes, remove, write_bytes
from curation.vlm.asking import Question, Questions, Reply
from curation.vlm.pictures import Person

_LOT = 256  # answers of one object at most …
_LOT_S = 10.0  # … and how long the first of them waits
_MERGE_FROM = 64  # files


class AnswerCache:
    """{key: Reply} over all workers of a phase, now and before. Errors are never remembered."""

    def __init__(self, files: AnswerFiles) -> None:
        self._files = files
        self._local = is_local(files.folder)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._known: dict[bytes, tuple[str, float | None]] = {}
        self._read: dict[str, int] = {}  # bytes read of each file
        self._lot: list[bytes] = []
        self._lot_since = 0.0
        self._lots = 0

    def refresh(self) -> None:
        """Reads what was written since; a line that is cut off by a kill does not count."""
        for name in self._files.names():
            if name.startswith(self._name):
                continue
            path, done = self._files.path(name), self._read.get(name, 0)
            if self._local:
                with open(local_path(path), "rb") as file:
                    file.seek(done)
                    data = file.read()
            elif done:
                continue
            else:
                data = read_bytes(path)
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.splitlines():
                try:
                    key, answer, p_yes = json.loads(line)
                except ValueError:  # a full disk cuts a line off
                    continue
                self._known[bytes.fromhex(key)] = (answer, p_yes)
            self._read[name] = done + len(whole)

    def get(self, key: str) -> Reply | None:
        """The remembered answer to the question with this key (hex)."""
        found = self._known.get(bytes.fromhex(key))
        return None if found is None else Reply(*found)

    def put(self, key: str, reply: Reply) -> None:
        """Remembers an answer."""
        assert reply.error is None
        assert reply.answer is not None
        self._known[bytes.fromhex(key)] = (reply.answer, reply.p_yes)
        line = json.dumps([key, reply.answer, reply.p_yes]).encode() + b"\n"
        if self._local:
            self._append(line)
            return
        if not self._lot:
            self._lot_since = time.monotonic()
        self._lot.append(line)
        if len(self._lot) >= _LOT or time.monotonic() - self._lot_since >= _LOT_S:
            self.flush()

    def flush(self) -> None:
        """Puts the answers that wait; nothing waits on a local disk."""
        if self._lot:
            write_bytes(self._files.path(f"{self._name}-{self._lots:06d}"), b"".join(self._lot))
            self._lot, self._lots = [], self._lots + 1

    def _append(self, line: bytes) -> None:
        os.makedirs(local_path(self._files.folder), exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(local_path(self._files.path(self._name)), flags, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def merge_answers(files: AnswerFiles) -> None:
    """Makes one file of many, so that workers open few. Only while no worker writes."""
    names = files.names()
    if len(names) < _MERGE_FROM:
        return
    lines: dict[bytes, None] = {}
    for name in names:
        data = read_bytes(files.path(name))
        lines |= dict.fromkeys(data[: data.rfind(b"\n") + 1].splitlines(keepends=True))
    merged = f"merged-{fingerprint(names)}"
    write_bytes(files.path(merged), b"".join(lines))
    for name in names:
        if name != merged:
            remove(files.path(name))


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
