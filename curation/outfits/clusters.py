"""The strategy `clusters`: every outfit of a person is a group of its own.

Photos are placed one after the other, those that look like a placed photo first. A photo is compared with
the outfits found so far, the likeliest first; each comparison is decided by calibrated log-odds. An open
comparison is asked again with the order swapped, because judges are swayed by order, then of another photo
of the outfit, because a view may hide what differs, then region by region where the judge can. What no
outfit takes begins an outfit of its own. Stored colours order, skip and speak against; alone they never
accept, and a judge that says no is not overruled.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from curation.ledger import Outcome, at_least, failed, judged
from curation.outfits.evidence import Weights, log_odds_of
from curation.outfits.judge import Answer, logit, probability
from curation.outfits.strategy import Ask, Strategy, Verdicts
from curation.settings.outfits import ClustersStrategy

Asking = Generator[list[Ask], list[Answer], float | None]


@dataclass
class _Placed:
    """How a photo came to its outfit: the log-odds that decided, beside whom, and what was refused before."""

    log_odds: float | None = None
    beside: int | None = None
    refused: list[str] = field(default_factory=list)
    merged: bool = False
    error: str | None = None


def outfit_clusters(
    ids: Sequence[str], alike: np.ndarray, settings: ClustersStrategy, min_photos: int, asks_regions: bool
) -> Strategy:
    """Judges one person.

    ids           person_ids of the photos, ascending; for `why`
    alike         float [n, n], 0 to 1, NaN where unknown (`outfits/similarity.py`)
    asks_regions  whether the judge keeps `JudgesRegions`

    The result depends on the photos and the answers alone, not on the order in which photos arrived.
    """
    count = len(ids)
    if count < min_photos:
        alone = judged([at_least("too_few_photos", count, min_photos)])
        return Verdicts(alone, [alone] * count, [None] * count)
    person = _Person(ids, alike, settings.resolved(), asks_regions)
    for photo in _by_likeness(alike):
        yield from person.place(photo)
    if person.settings.check_triangles:
        yield from person.check_triangles()
    if person.settings.merge:
        yield from person.merge()
    return person.verdicts(min_photos)


def _by_likeness(alike: np.ndarray) -> list[int]:
    """All photos: first the one most like the others, then always the one most like a placed one."""
    known = np.nan_to_num(alike, nan=0.0)
    order = [int(known.sum(axis=1).argmax())]
    nearest = known[order[0]].copy()
    while len(order) < len(known):
        nearest[order] = -1.0
        order.append(int(nearest.argmax()))
        nearest = np.maximum(nearest, known[order[-1]])
    return order


class _Person:
    """One person's outfits while they come about. Its methods are parts of the strategy's generator."""

    def __init__(
        self, ids: Sequence[str], alike: np.ndarray, settings: ClustersStrategy, asks_regions: bool
    ) -> None:
        self.settings = settings
        self.outfits: list[list[int]] = []
        self.asked: list[tuple[Ask, Answer]] = []
        self._ids = ids
        self._alike = alike
        self._asks_regions = asks_regions
        self._weights = Weights(settings.calibration)
        self._said: dict[tuple[int, int], list[float]] = {}
        self._error: dict[tuple[int, int], str] = {}
        self._placed = [_Placed() for _ in ids]
        self._accept = logit(settings.accept or 0.5)
        self._sure_same = logit(settings.sure_same or 0.5)
        self._sure_other = logit(settings.sure_other or 0.5)

    def place(self, photo: int) -> Generator[list[Ask], list[Answer], None]:
        """Puts a photo into the first outfit that takes it, the likeliest first, or into a new one."""
        mine = self._placed[photo]
        for outfit in self._likeliest(photo):
            beside = self._representative(outfit, photo)
            log_odds = yield from self._compare(outfit, beside, photo)
            if log_odds is None:
                mine.error = self._error.get((min(beside, photo), max(beside, photo)), mine.error)
                continue
            if log_odds >= self._accept:
                mine.log_odds, mine.beside, mine.error = log_odds, beside, None
                outfit.append(photo)
                return
            mine.refused.append(f"{self._name(beside)} {probability(log_odds):.3f}")
            if mine.log_odds is None or log_odds > mine.log_odds:
                mine.log_odds, mine.beside = log_odds, beside
        if mine.error is None:
            self.outfits.append([photo])

    def check_triangles(self) -> Generator[list[Ask], list[Answer], None]:
        """Compares the two least similar photos of an outfit that were never compared.

        Where they differ although both were found the same as others (A = B, B = C, A ≠ C), both are asked
        against the rest, and whoever the rest does not confirm leaves.
        """
        for outfit in self.outfits:
            open_pairs = [
                (a, b)
                for i, a in enumerate(outfit)
                for b in outfit[:i]
                if (min(a, b), max(a, b)) not in self._said
            ]
            if len(outfit) < 3 or not open_pairs:
                continue
            a, b = min(open_pairs, key=lambda pair: (np.nan_to_num(self._alike[pair], nan=1.0), pair))
            log_odds = yield from self._pair(a, b)
            if log_odds is None or log_odds >= 0:
                continue
            standing = {}
            for photo, other in ((a, b), (b, a)):
                rest = [member for member in outfit if member not in (a, b)]
                rest.sort(key=lambda member: (-np.nan_to_num(self._alike[member, photo]), member))
                said = [log_odds]
                for member in rest[:2]:
                    found = yield from self._pair(member, photo)
                    said += [] if found is None else [found]
                standing[photo] = (sum(said) / len(said), photo, other)
            mean, photo, other = min(standing.values())
            if mean < self._accept:
                outfit.remove(photo)
                self.outfits.append([photo])
                self._placed[photo] = _Placed(mean, other, [f"{self._name(other)} {probability(mean):.3f}"])

    def merge(self) -> Generator[list[Ask], list[Answer], None]:
        """Compares outfits that were never compared, smaller into larger; what joins is marked."""
        for small in sorted(self.outfits, key=lambda outfit: (len(outfit), outfit)):
            for large in sorted(self.outfits, key=lambda outfit: (-len(outfit), outfit)):
                if large is small or len(large) < len(small) or self._were_compared(small, large):
                    continue
                photo = self._representative(small, large[0])
                beside = self._representative(large, photo)
                log_odds = yield from self._compare(large, beside, photo)
                if log_odds is not None and log_odds >= self._accept:
                    large += small
                    for member in small:
                        self._placed[member].merged = True
                    self._placed[photo].log_odds, self._placed[photo].beside = log_odds, beside
                    small.clear()
                    break
        self.outfits = [outfit for outfit in self.outfits if outfit]

    def verdicts(self, min_photos: int) -> Verdicts:
        """What is kept: every outfit with enough photos, lettered by its least photo."""
        photos: list[Outcome] = [
            failed("judge_error", placed.error or "a photo that it depends on has no answer")
            for placed in self._placed
        ]
        outfits: list[str | None] = [None] * len(self._ids)
        unknown = sum(placed.error is not None for placed in self._placed)
        kept_outfits = sorted((o for o in self.outfits if len(o) >= min_photos), key=min)
        for number, outfit in enumerate(kept_outfits):
            for photo in outfit:
                outfits[photo] = letters(number)
                photos[photo] = self._kept(photo, outfit)
        for outfit in self.outfits:
            if len(outfit) < min_photos and not unknown:
                for photo in outfit:
                    photos[photo] = self._alone(photo, outfit, min_photos)
        largest = max((len(outfit) for outfit in self.outfits), default=0)
        if largest < min_photos <= largest + unknown:
            person = failed("judge_error", f"{unknown} of the photos have no answer")
        else:
            person = judged([at_least("too_few_photos", largest, min_photos)])
        merged = [placed.merged for placed in self._placed]
        return Verdicts(person, photos, outfits, self.asked, merged)

    def _kept(self, photo: int, outfit: list[int]) -> Outcome:
        placed = self._placed[photo]
        threshold = self.settings.accept
        if placed.log_odds is None or placed.beside not in outfit:
            return Outcome("kept", detail=f"first photo of its outfit{self._refusals(photo)}")
        how = "merged at the end: " if placed.merged else ""
        detail = f"{how}the same as {self._name(placed.beside)}{self._refusals(photo)}"
        return Outcome("kept", "", round(probability(placed.log_odds), 6), threshold, detail)

    def _alone(self, photo: int, outfit: list[int], min_photos: int) -> Outcome:
        detail = self._refusals(photo).removeprefix("; ")
        return Outcome("rejected", "too_few_photos", len(outfit), min_photos, detail)

    def _refusals(self, photo: int) -> str:
        refused = self._placed[photo].refused
        return f"; not the same as {', '.join(refused)}" if refused else ""

    def _name(self, photo: int) -> str:
        """A photo as people find it with `persona why`: the start of its id."""
        return self._ids[photo][:10]

    def _likeliest(self, photo: int) -> list[list[int]]:
        """The outfits to compare with, by their most similar photo.

        Those below the low cut, or so unlike that no answer would be believed, are left out.
        """
        near = []
        for number, outfit in enumerate(self.outfits):
            alike = self._alike[photo, outfit]
            best = None if np.isnan(alike).all() else float(np.nanmax(alike))
            if best is None or (
                best >= (self.settings.low_cut or 0.0) and self._weights.at_most(best) >= self._accept
            ):
                near.append((-(0.0 if best is None else best), number, outfit))
        return [outfit for _, _, outfit in sorted(near)[: self.settings.tries]]

    def _representative(self, outfit: list[int], photo: int) -> int:
        """The member that looks most like the photo; the earlier placed of two."""
        return max(
            outfit, key=lambda member: (np.nan_to_num(self._alike[member, photo]), -outfit.index(member))
        )

    def _were_compared(self, one: list[int], other: list[int]) -> bool:
        return any((min(a, b), max(a, b)) in self._said for a in one for b in other)

    def _compare(self, outfit: list[int], beside: int, photo: int) -> Asking:
        """The mean log-odds that a photo shows an outfit, over as many questions as it takes."""
        log_odds = yield from self._pair(beside, photo)
        if log_odds is None or not self._is_open(log_odds):
            return log_odds
        others = [member for member in outfit if member != beside]
        if self.settings.second_member and others:
            second = self._representative(others, photo)
            more = yield from self._pair(second, photo)
            if more is not None:
                log_odds = (log_odds + more) / 2
        if self._is_open(log_odds) and self._asks_regions:
            by_regions = yield from self._ask(Ask(beside, photo, by_regions=True))
            if by_regions is not None:
                regions = self._weights.of_pair(by_regions, float(self._alike[beside, photo]))
                log_odds = regions if by_regions < 0 else (log_odds + regions) / 2
        return log_odds

    def _is_open(self, log_odds: float) -> bool:
        return self._sure_other < log_odds < self._sure_same

    def _pair(self, a: int, b: int) -> Asking:
        """The mean log-odds of a pair: one order, and the other where the first leaves it open."""
        key = (min(a, b), max(a, b))
        if key not in self._said:
            first = yield from self._ask(Ask(a, b))
            if first is None:
                return None
            self._said[key] = [first]
            if self._is_open(self._weigh(key)):
                second = yield from self._ask(Ask(b, a))
                self._said[key] += [] if second is None else [second]
        return self._weigh(key)

    def _ask(self, ask: Ask) -> Asking:
        answer = (yield [ask])[0]
        self.asked.append((ask, answer))
        if answer.error is not None:
            self._error[min(ask.a, ask.b), max(ask.a, ask.b)] = answer.error
            return None
        return None if ask.by_regions and answer.same is None else log_odds_of(answer)

    def _weigh(self, pair: tuple[int, int]) -> float:
        said = self._said[pair]
        return self._weights.of_pair(sum(said) / len(said), float(self._alike[pair]))


def letters(number: int) -> str:
    """a to z, then ba, bb and so on: outfits of one person are named in a fixed order."""
    name = ""
    while True:
        number, rest = divmod(number, 26)
        name = chr(ord("a") + rest) + name
        if number == 0:
            return name
