"""How photos of an identity become groups: a strategy asks about pairs, the judge answers many at once."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from curation.ledger import Outcome, at_least, failed, judged, kept
from curation.outfits.judge import Answer, JudgesRegions, PairJudge, PersonRow
from curation.settings.outfits import PaperStrategy


class Ask(NamedTuple):
    """Two photos of a person, by number, in the order in which the judge sees them.

    by_regions  region by region instead of as a whole; only judges that are `JudgesRegions` can
    """

    a: int
    b: int
    by_regions: bool = False


@dataclass
class Verdicts:
    """What a strategy found: the person as a whole, each photo, and the outfit letter of each.

    merged  photos whose outfit was joined to another at the end; empty: none
    """

    person: Outcome
    photos: list[Outcome]
    outfits: list[str | None]
    asked: list[tuple[Ask, Answer]] = field(default_factory=list)
    merged: list[bool] = field(default_factory=list)


Strategy = Generator[list[Ask], list[Answer], Verdicts]


def paper_protocol(
    count: int, random: np.random.Generator, settings: PaperStrategy, min_photos: int
) -> Strategy:
    """Judges a person with `count` photos, numbered in a fixed order."""
    if count < min_photos:
        alone = judged([at_least("too_few_photos", count, min_photos)])
        return Verdicts(alone, [alone] * count, [None] * count)
    order = [int(place) for place in random.permutation(count)]
    asked: list[tuple[Ask, Answer]] = []
    first, second = order[:2]
    answer = (yield [Ask(first, second)])[0]
    asked.append((Ask(first, second), answer))
    if answer.same is not True:
        dropped = _no(answer, "outfit_differs", f"photos {first} and {second} of the person")
        return Verdicts(dropped, [dropped] * count, [None] * count, asked)
    outcomes: list[Outcome] = [kept()] * count
    outcomes[first] = outcomes[second] = _yes(answer)
    window = [first, second]
    for photo in order[2:]:
        pairs = [Ask(other, photo) for other in window[-settings.window :]]
        answers = yield pairs
        asked += zip(pairs, answers, strict=True)
        outcomes[photo] = _by_rule(answers, settings.rule)
        if outcomes[photo].verdict == "kept":
            window.append(photo)
    unknown = sum(outcome.verdict == "failed" for outcome in outcomes)
    if len(window) < min_photos <= len(window) + unknown:
        person = failed("judge_error", f"{unknown} of the photos have no answer")
    else:
        person = judged([at_least("too_few_photos", len(window), min_photos)])
    if person.verdict != "kept":
        outcomes = [person if outcome.verdict == "kept" else outcome for outcome in outcomes]
        return Verdicts(person, outcomes, [None] * count, asked)
    outfits = ["a" if outcome.verdict == "kept" else None for outcome in outcomes]
    return Verdicts(person, outcomes, outfits, asked)


def _by_rule(answers: list[Answer], rule: str) -> Outcome:
    broken = [answer for answer in answers if answer.error is not None]
    yes = [answer for answer in answers if answer.same is True]
    no = [answer for answer in answers if answer.error is None and answer.same is not True]
    needed = {"any": 1, "majority": len(answers) // 2 + 1, "all": len(answers)}[rule]
    if len(yes) >= needed:
        return _yes(yes[-1])
    if broken and len(yes) + len(broken) >= needed:
        return failed("judge_error", broken[0].error or "")
    return _no(no[-1], "other_outfit", "")


def _yes(answer: Answer) -> Outcome:
    return Outcome("kept", "", answer.score, answer.threshold, answer.detail)


def _no(answer: Answer, reason: str, detail: str) -> Outcome:
    if answer.error is not None:
        return failed("judge_error", answer.error)
    said = "; ".join(part for part in (detail, answer.detail) if part)
    if answer.same is None:
        return Outcome("rejected", "outfit_unknown", answer.score, answer.threshold, said)
    return Outcome("rejected", reason, answer.score, answer.threshold, said)


def judge_side_by_side(
    strategies: Sequence[Strategy], people: Sequence[Sequence[PersonRow]], judge: PairJudge
) -> list[Verdicts]:
    """The verdicts of each strategy, in order. people[i] are the photos that strategy i numbers."""
    verdicts: dict[int, Verdicts] = {}
    answers: dict[int, list[Answer] | None] = dict.fromkeys(range(len(strategies)))
    while answers:
        wanted: list[tuple[int, list[Ask]]] = []
        for place, said in answers.items():
            try:
                wanted.append((place, strategies[place].send(said)))  # type: ignore[arg-type]
            except StopIteration as stop:
                verdicts[place] = stop.value
        said_all = iter(_ask(judge, [(people[place], ask) for place, asks in wanted for ask in asks]))
        answers = {place: [next(said_all) for _ in asks] for place, asks in wanted}
    return [verdicts[place] for place in range(len(strategies))]


def _ask(judge: PairJudge, asks: Sequence[tuple[Sequence[PersonRow], Ask]]) -> list[Answer]:
    """Whole pairs side by side, then regions side by side; answers in the order of `asks`."""
    answers: dict[int, Answer] = {}
    for by_regions in (False, True):
        places = [place for place, (_, ask) in enumerate(asks) if ask.by_regions is by_regions]
        pairs = [(asks[p][0][asks[p][1].a], asks[p][0][asks[p][1].b]) for p in places]
        if not pairs:
            continue
        if by_regions:
            assert isinstance(judge, JudgesRegions)
            answers |= zip(places, judge.ask_regions(pairs), strict=True)
        else:
            answers |= zip(places, judge.ask(pairs), strict=True)
    return [answers[place] for place in range(len(asks))]
