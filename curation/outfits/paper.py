"""The protocol of the Visual Persona paper (arXiv 2503.15406, section 3).

Two photos of a person drawn at random are shown to the judge; unless the clothes are the same, the
person is dropped. Otherwise a sliding window of pairs goes over all photos of the person. The paper
does not say how long the window is nor what its answers must be: `window` and `rule` are ours.
"""

import numpy as np

from curation.ledger import Outcome, at_least, failed, judged, kept
from curation.outfits.judge import Answer
from curation.outfits.strategy import Ask, Strategy, Verdicts
from curation.settings.outfits import PaperStrategy


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
