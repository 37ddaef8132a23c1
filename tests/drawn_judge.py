"""A judge without pictures, with the faults of real ones: for tests and measurements of strategies alone.

Errors are drawn by pair, so asking again says the same again, and a part of them by order, so that the
swapped question may say otherwise. Two outfits that share garments (`hard`) are taken for one more often.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from curation.outfits.judge import Answer, probability
from curation.outfits.strategy import Ask, Strategy, Verdicts

CUT = 0.5


@dataclass(frozen=True)
class DrawnPerson:
    """outfits [n]: which outfit each photo shows; alike float [n, n]: similarity of stored colours."""

    outfits: list[int]
    alike: np.ndarray
    hard: set[frozenset[int]]
    seed: int
    false_same: float = 0.03
    false_other: float = 0.05
    false_hard: float = 0.3

    def answer(self, ask: Ask) -> Answer:
        """What the judge says: a function of the pair, its order and the seed."""
        same = self.outfits[ask.a] == self.outfits[ask.b]
        pair = np.random.default_rng([self.seed, min(ask.a, ask.b), max(ask.a, ask.b)])
        order = np.random.default_rng([self.seed, ask.a, ask.b, 1])
        hard = frozenset((self.outfits[ask.a], self.outfits[ask.b])) in self.hard
        wrong = self.false_other if same else self.false_hard if hard else self.false_same
        right = pair.uniform() >= wrong
        # Right answers are surer than wrong ones.
        strength = pair.normal(6.0 if right else 2.0, 1.0) + order.normal(0, 0.5)
        score = probability(float(strength if same is bool(right) else -strength))
        return Answer(score >= CUT, score, CUT)


def drawn_person(
    seed: int, photos: int, outfits: int, hard_share: float = 0.15, **faults: float
) -> DrawnPerson:
    """A person with `photos` photos of `outfits` outfits, equally likely."""
    random = np.random.default_rng(seed)
    worn = [int(outfit) for outfit in random.integers(outfits, size=photos)]
    hard = {frozenset(pair) for pair in combinations(range(outfits), 2) if random.uniform() < hard_share}
    alike = np.eye(photos)
    for a, b in combinations(range(photos), 2):
        same, shares = worn[a] == worn[b], frozenset((worn[a], worn[b])) in hard
        centre = 0.93 if same else 0.88 if shares else 0.75
        alike[a, b] = alike[b, a] = round(float(np.clip(random.normal(centre, 0.04), 0, 1)), 5)
    return DrawnPerson(worn, alike, hard, seed, **faults)


def drive(strategy: Strategy, answer: Callable[[Ask], Answer]) -> Verdicts:
    """Runs a strategy to its end, with anything that answers."""
    said = None
    while True:
        try:
            asks = strategy.send(said)  # type: ignore[arg-type]
        except StopIteration as stop:
            verdicts: Verdicts = stop.value
            return verdicts
        said = [answer(ask) for ask in asks]


def pairs_of(labels: list[int] | list[str | None]) -> set[tuple[int, int]]:
    """Pairs of photos with one label; None is with nobody."""
    return {(a, b) for a, b in combinations(range(len(labels)), 2) if labels[a] == labels[b] is not None}
