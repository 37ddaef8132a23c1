"""Runs the strategies of many people side by side: what all of them want next is asked in one go.

So a server is busy with as many questions as there are people, while those about one follow each other.
"""

from collections.abc import Sequence

from curation.outfits.judge import Answer, JudgesRegions, PairJudge, PersonRow
from curation.outfits.strategy import Ask, Strategy, Verdicts


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
