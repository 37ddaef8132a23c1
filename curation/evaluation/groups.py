"""Groups against the truth: one person in one outfit, and captions that tell what is there."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from curation.evaluation.answers import Answers, who_is_shown
from curation.evaluation.truth import FACT_NAMES, Facts, Measure, Truth, share

Person = dict[str, Any]


def outfits(answers: Answers, truth: Truth) -> list[Measure]:
    """judge_run_*, pair_precision, pair_recall, pairs_kept and groups_kept."""
    true = who_is_shown(answers.looked_at)
    return [*_judge(answers, true), *final_pairs(answers.groups, truth, true)]


def same_outfit(a: Person | None, b: Person | None) -> bool:
    """Whether two people of the truth are one person in one outfit."""
    if a is None or b is None:
        return False
    return bool(a["identity"] == b["identity"] and a["outfit"] == b["outfit"])


def _judge(answers: Answers, true: dict[str, Person | None]) -> list[Measure]:
    """The pairs of the run are mostly yes: the mean of both recalls does not reward a constant answer.

    A pair that the judge could not tell, or got no answer for, is a wrong one.
    """
    right: Counter[bool] = Counter()
    asked: Counter[bool] = Counter()
    for a, b, given in answers.pairs:
        is_same = same_outfit(true.get(a), true.get(b))
        asked[is_same] += 1
        right[is_same] += given is is_same
    balanced = None
    if asked[True] and asked[False]:
        balanced = round((right[True] / asked[True] + right[False] / asked[False]) / 2, 5)
    return [
        Measure("judge_run_accuracy", "judge, pairs of the run, balanced", balanced, len(answers.pairs)),
        share("judge_run_yes", "judge, pairs of the run that are the same", right[True], asked[True]),
        share("judge_run_no", "judge, pairs of the run that are not", right[False], asked[False]),
    ]


def final_pairs(
    groups: Mapping[str, Sequence[str]], truth: Truth, true: Mapping[str, Person | None]
) -> list[Measure]:
    """Pairs of photos in one group ({group: person_ids}), against all that the collection holds.

    The recall is over the pairs of main people on photos that decode and are no copies. A photo and its
    copies count as one, whichever of them the run kept.
    """
    kept = right = 0
    found: set[frozenset[tuple[str, str]]] = set()
    wanted = _wanted_pairs(truth)
    for people in groups.values():
        for a, b in combinations(people, 2):
            kept += 1
            first, second = true.get(a), true.get(b)
            if first is None or second is None or not same_outfit(first, second):
                continue
            places = frozenset((_place(truth, first), _place(truth, second)))
            if len(places) == 2:
                right += 1
                found.add(places)
    return [
        share("pair_precision", "final pairs that are one person in one outfit", right, kept),
        share("pair_recall", "true pairs of the collection that came out", len(found & wanted), len(wanted)),
        Measure("pairs_kept", "final pairs", kept, None),
        Measure("groups_kept", "groups packed", len(groups), None),
    ]


def _wanted_pairs(truth: Truth) -> set[frozenset[tuple[str, str]]]:
    worn: dict[str, list[tuple[str, str]]] = {}
    for photo_id, people in truth.people.items():
        photo = truth.photos.get(photo_id)
        if photo is None or not truth.decodes(photo_id) or truth.original(photo_id) != photo_id:
            continue
        for person in people:
            if person["main"]:
                worn.setdefault(person["outfit"], []).append(_place(truth, person))
    return {
        frozenset(pair)
        for places in worn.values()
        for pair in combinations(places, 2)
        if pair[0][0] != pair[1][0]
    }


def _place(truth: Truth, person: Person) -> tuple[str, str]:
    return truth.original(person["photo_id"]), person["identity"]


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


def captions(given: dict[str, str], true: dict[str, dict[str, Any] | None], facts: Facts) -> list[Measure]:
    """caption_facts, caption_coverage, caption_forbidden and caption_FACT of each fact.

    said {person_id: caption}; true {person_id: row of people.parquet, or None}: a caption of nobody states
    nothing right.
    """
    reader = FactReader(facts)
    counts = _Counts()
    for person_id, caption in given.items():
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
        share("caption_coverage", f"captions that state {' and '.join(NEEDED)}", counts.covered, len(given)),
        Measure(
            "caption_forbidden", "captions with words about clothes or identity", counts.forbidden, len(given)
        ),
        *(
            share(f"caption_{fact}", f"stated {fact} that is right", counts.right[fact], counts.stated[fact])
            for fact in FACT_NAMES
        ),
    ]
