"""Captions: are the facts that they state right, and do they keep silent about clothes and identity?

A caption is read with the phrases of facts.json, the longest first, whole words only; what one phrase has
taken no other reads again, unless it is the same phrase of another fact.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation.evaluation.forbidden_words import forbidden_in
from curation.evaluation.measure import Measure, share
from curation.evaluation.truth import FACT_NAMES, Facts

STATED = ("pose", "arms", "view", "scene")
"""The facts of `caption_facts`; framing and expression are reported by themselves."""
NEEDED = ("pose", "scene")
"""A caption that states these covers its photo."""


class FactReader:
    """Reads the facts that a caption states."""

    def __init__(self, facts: Facts) -> None:
        self._means: dict[str, list[tuple[str, str]]] = {}
        for fact, values in facts.items():
            for value, phrases in values.items():
                for phrase in phrases:
                    self._means.setdefault(_plain(phrase), []).append((fact, value))
        self._longest_first = sorted(self._means, key=lambda phrase: (-len(phrase), phrase))

    def read(self, caption: str) -> set[tuple[str, str]]:
        """{(fact, value)} that the caption states."""
        text = _plain(caption)
        stated: set[tuple[str, str]] = set()
        for phrase in self._longest_first:
            if phrase not in text:
                continue
            pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
            text, times = re.subn(pattern, "\n", text)
            if times:
                stated.update(self._means[phrase])
        return stated


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass
class _Counts:
    right: Counter[str] = field(default_factory=Counter)
    stated: Counter[str] = field(default_factory=Counter)
    covered: int = 0
    forbidden: int = 0


def captions(said: dict[str, str], true: dict[str, dict[str, Any] | None], facts: Facts) -> list[Measure]:
    """caption_facts, caption_coverage, caption_forbidden and caption_FACT of each fact.

    said {person_id: caption}; true {person_id: row of people.parquet, or None}: a caption of nobody states
    nothing right.
    """
    reader = FactReader(facts)
    counts = _Counts()
    for person_id, caption in said.items():
        person = true.get(person_id) or {}
        stated = reader.read(caption)
        for fact, value in stated:
            counts.stated[fact] += 1
            counts.right[fact] += person.get(fact) == value
        counts.covered += {fact for fact, _ in stated} >= set(NEEDED)
        counts.forbidden += bool(forbidden_in(caption))
    right, stated_all = (sum(found[fact] for fact in STATED) for found in (counts.right, counts.stated))
    return [
        share("caption_facts", f"stated facts that are right ({', '.join(STATED)})", right, stated_all),
        share("caption_coverage", f"captions that state {' and '.join(NEEDED)}", counts.covered, len(said)),
        Measure(
            "caption_forbidden", "captions with words about clothes or identity", counts.forbidden, len(said)
        ),
        *(
            share(f"caption_{fact}", f"stated {fact} that is right", counts.right[fact], counts.stated[fact])
            for fact in FACT_NAMES
        ),
    ]
