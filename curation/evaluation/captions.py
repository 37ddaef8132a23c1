"""Captions against the truth: the facts that they tell, and words that they must not have."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation.evaluation.measure import Measure, share
from curation.evaluation.truth import FACT_NAMES, Facts

_CLOTHES = """
apron bag backpack bandana beanie belt beret blazer blouse boot boots bra bracelet cap cardigan clad cloak
clothed clothes clothing coat collar corset costume dress dressed dresses dungarees earring earrings
footwear frock garment garments gloves gown handbag hat headscarf heels helmet hoodie jacket jeans jersey
jewelry jewellery jumper jumpsuit kimono leggings loafers miniskirt necklace necktie outfit outfits overalls
overcoat pants parka poncho pullover purse pyjamas raincoat robe sandals sari scarf shawl shirt shirts shoe
shoes shorts skirt sleeve sleeves sleeveless slippers sneakers socks stockings suit suspenders sweater
sweatpants sweatshirt swimsuit tee tights trainers trousers tshirt tunic turban turtleneck tuxedo uniform
vest waistcoat wear wearing wears wore worn
"""
_IDENTITY = """
actor actress adult aged aunt bald beard bearded blond blonde boy boyfriend bride brother brunette celebrity
child daughter elderly eyebrows father female gentleman girl girlfriend glasses grandfather grandmother
groom guy hair haired haircut he her hers herself him himself his husband lady male man men moustache mother
mustache she sister skin skinned son spectacles sunglasses teen teenage teenager uncle wife woman women
young
"""
_FORBIDDEN = frozenset((_CLOTHES + _IDENTITY).split())
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_BEGINS_SENTENCE = re.compile(r"(?:^|[.!?:\"])\s*$")


def forbidden_in(caption: str) -> list[str]:
    """The words of a caption that tell of clothes or of who it is, in their order; [] for a good one."""
    text = caption.replace("’", "'")
    found = []
    for match in _WORD.finditer(text):
        word = match[0]
        parts = {word.casefold().removesuffix("'s"), *re.split(r"[-']", word.casefold())}
        like_a_name = word[0].isupper() and word != "I" and not _BEGINS_SENTENCE.search(text[: match.start()])
        if parts & _FORBIDDEN or like_a_name:
            found.append(word)
    return found


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
