"""Ways of finding a person's outfits that `clusters` is compared with: as strategies, over the same judge."""

from collections.abc import Sequence

import numpy as np

from curation.ledger import kept
from curation.outfits.clusters import letters
from curation.outfits.judge import Answer, Weights, log_odds_of, logit
from curation.outfits.strategy import Ask, Strategy, Verdicts


def all_pairs(alike: np.ndarray, weights: Weights, accept: float) -> Strategy:
    """Asks every pair once, then joins by average linkage of log-odds while the mean reaches `accept`."""
    count = len(alike)
    asks = [Ask(a, b) for a in range(count) for b in range(a)]
    answers = (yield asks) if asks else []
    log_odds = np.zeros((count, count))
    for ask, answer in zip(asks, answers, strict=True):
        found = weights.of_pair(log_odds_of(answer), float(alike[ask.a, ask.b]))
        log_odds[ask.a, ask.b] = log_odds[ask.b, ask.a] = found
    outfits = average_linkage(log_odds, logit(accept))
    return _verdicts(count, outfits, list(zip(asks, answers, strict=True)))


def random_leader(count: int, random: np.random.Generator) -> Strategy:
    """Photos in a drawn order; each is asked once against the first photo of each outfit, oldest first."""
    outfits: list[list[int]] = []
    asked = []
    for photo in random.permutation(count).tolist():
        for outfit in outfits:
            ask = Ask(outfit[0], photo)
            answer = (yield [ask])[0]
            asked.append((ask, answer))
            if answer.same:
                outfit.append(photo)
                break
        else:
            outfits.append([photo])
    return _verdicts(count, outfits, asked)


def colours_only(alike: np.ndarray, cut: float) -> Strategy:
    """Asks nothing: average linkage of stored colours."""
    yield from ()
    return _verdicts(len(alike), average_linkage(np.nan_to_num(alike, nan=0.0), cut), [])


def known_outfits(outfits: Sequence[str | None]) -> Strategy:
    """Asks nothing and is right: what the phases before leave to be found. None is with nobody."""
    yield from ()
    found: dict[str, list[int]] = {}
    for photo, outfit in enumerate(outfits):
        found.setdefault(outfit or f"nobody {photo}", []).append(photo)
    return _verdicts(len(outfits), list(found.values()), [])


def average_linkage(score: np.ndarray, least: float) -> list[list[int]]:
    """Joins the two groups with the highest mean score between them, while it is at least `least`."""
    groups = [[photo] for photo in range(len(score))]
    while len(groups) > 1:
        best, a, b = max(
            (float(score[np.ix_(one, other)].mean()), i, j)
            for i, one in enumerate(groups)
            for j, other in enumerate(groups[:i])
        )
        if best < least:
            break
        groups[b] += groups.pop(a)
    return groups


def _verdicts(count: int, outfits: list[list[int]], asked: list[tuple[Ask, Answer]]) -> Verdicts:
    named: list[str | None] = [None] * count
    for number, outfit in enumerate(sorted(outfits, key=min)):
        for photo in outfit if len(outfit) > 1 else []:
            named[photo] = letters(number)
    return Verdicts(kept(), [kept()] * count, named, asked)
