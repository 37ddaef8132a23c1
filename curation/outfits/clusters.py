"""The strategy `clusters`: every outfit of a person is a group of its own.

Photos are placed one after the other, those that look like a placed photo first. A photo is compared with
the outfits found so far, the likeliest first; each comparison is decided by calibrated log-odds. An open
comparison is asked again with the order swapped, because judges are swayed by order, then of another photo
of the outfit, because a view may hide what differs, then region by region where the judge can. What no
outfit takes begins an outfit of its own. Stored colours order, skip and speak against; alone they never
accept, and a judge that says no is not overruled.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from curation.ledger import Outcome, at_least, failed, judged
from curation.outfits.judge import Answer, Weights, log_odds_of, logit, probability
from curation.outfits.strategy import Ask, Strategy, Verdicts
from curation.settings.outfits import ClustersRules, ClustersStrategy

_ASKED_OF_A_SPLIT = 2  # other photos at least, before an outfit is taken for one
# Of drawn people with 24 photos in four outfits (tests/drawn_judge.py) one check an outfit leaves 1.3 % wrong
# pairs, this 0.25 %, for 18 % more questions.
_PHOTOS_A_CHECK = 3
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
    alike         float [n, n], 0 to 1, NaN where unknown (`outfits/appearance_judge.py`)
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
        self, ids: Sequence[str], alike: np.ndarray, settings: ClustersRules, asks_regions: bool
    ) -> None:
        self.settings = settings
        self.outfits: list[list[int]] = []
        self.asked: list[tuple[Ask, Answer]] = []
        self._ids = ids
        self._alike = alike
        self._asks_regions = asks_regions
        self._weights = Weights(settings.calibration)
        self._log_odds: dict[tuple[int, int], list[float]] = {}
        self._error: dict[tuple[int, int], str] = {}
        self._placed = [_Placed() for _ in ids]
        self._accept = logit(settings.accept)
        self._sure_same = logit(settings.sure_same)
        self._sure_other = logit(settings.sure_other)

    def place(self, photo: int) -> Generator[list[Ask], list[Answer], None]:
        """Puts a photo into the first outfit that takes it, the likeliest first, or into a new one."""
        placed = self._placed[photo]
        for outfit in self._likeliest(photo):
            beside = self._representative(outfit, photo)
            log_odds = yield from self._compare(outfit, beside, photo)
            if log_odds is None:
                placed.error = self._error.get((min(beside, photo), max(beside, photo)), placed.error)
                continue
            if log_odds >= self._accept:
                placed.log_odds, placed.beside, placed.error = log_odds, beside, None
                outfit.append(photo)
                return
            placed.refused.append(f"{self._name(beside)} {probability(log_odds):.3f}")
            if placed.log_odds is None or log_odds > placed.log_odds:
                placed.log_odds, placed.beside = log_odds, beside
        if placed.error is None:
            self.outfits.append([photo])

    def check_triangles(self) -> Generator[list[Ask], list[Answer], None]:
        """Compares the two least similar photos of an outfit that were never compared, once for three photos.

        Where they are not accepted as one although both were found the same as others (A = B, B = C, A ≠ C),
        every other photo is asked beside both and goes with the one that it fits better. The outfit falls in
        two unless the mean over the pairs across is accepted, as average linkage would have it: a photo that
        was taken for two outfits joins them no longer.
        """
        for outfit in self.outfits:  # what is split off is appended, and checked in its turn
            # One pair says little of a large outfit: two that were taken for one are large.
            for _ in range(max(len(outfit) // _PHOTOS_A_CHECK, 1)):
                open_pairs = [
                    (a, b)
                    for i, a in enumerate(outfit)
                    for b in outfit[:i]
                    if (min(a, b), max(a, b)) not in self._log_odds
                ]
                if len(outfit) < 3 or not open_pairs:
                    break
                a, b = min(open_pairs, key=lambda pair: (np.nan_to_num(self._alike[pair], nan=1.0), pair))
                log_odds = yield from self._pair(a, b)
                if log_odds is not None and log_odds < self._accept:
                    yield from self._split(outfit, a, b)

    def _split(self, outfit: list[int], a: int, b: int) -> Generator[list[Ask], list[Answer], None]:
        """Splits an outfit around two of its photos, if the answers across do not hold it together.

        Photos that look like one of the two and unlike the other are asked first. When these hold the outfit
        together, the rest is not asked.
        """
        alike = np.nan_to_num(self._alike[[a, b]], nan=0.5)
        rest = sorted(
            (photo for photo in outfit if photo not in (a, b)),
            key=lambda photo: (-abs(alike[0, photo] - alike[1, photo]), photo),
        )
        nearer: dict[int, float] = {}
        sides, mean = ([a], [b]), self._weigh((min(a, b), max(a, b)))
        for photo in rest:
            beside_a = yield from self._pair(a, photo)
            beside_b = yield from self._pair(b, photo)
            if beside_a is None or beside_b is None:
                continue
            nearer[photo] = beside_a - beside_b
            sides = _sides(a, b, nearer)
            mean = self._mean_across(sides)
            if mean >= self._accept and len(nearer) >= _ASKED_OF_A_SPLIT:
                break
        if mean >= self._accept:
            return
        split_off = min(sides, key=lambda side: (len(side), -outfit.index(side[0])))
        stays = b if split_off[0] == a else a
        left = [photo for photo in outfit if photo in split_off]
        outfit[:] = [photo for photo in outfit if photo not in split_off]
        self.outfits.append(left)
        for photo in left:
            if self._placed[photo].beside not in left:
                self._placed[photo] = _Placed(refused=[f"{self._name(stays)} {probability(mean):.3f}"])

    def _mean_across(self, sides: tuple[list[int], list[int]]) -> float:
        """Of the log-odds that are known between two sides; some are."""
        pairs = ((min(one, other), max(one, other)) for one in sides[0] for other in sides[1])
        known = [self._weigh(pair) for pair in pairs if pair in self._log_odds]
        return sum(known) / len(known)

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
                best >= self.settings.low_cut and self._weights.at_most(best) >= self._accept
            ):
                near.append((-(0.0 if best is None else best), number, outfit))
        return [outfit for _, _, outfit in sorted(near)[: self.settings.tries]]

    def _representative(self, outfit: list[int], photo: int) -> int:
        """The member that looks most like the photo; the earlier placed of two."""
        return max(
            outfit, key=lambda member: (np.nan_to_num(self._alike[member, photo]), -outfit.index(member))
        )

    def _were_compared(self, one: list[int], other: list[int]) -> bool:
        return any((min(a, b), max(a, b)) in self._log_odds for a in one for b in other)

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
            log_odds = yield from self._by_regions(beside, photo, log_odds)
        return log_odds

    def _by_regions(self, beside: int, photo: int, log_odds: float) -> Asking:
        """The log-odds of a pair that stayed open, after its regions were asked about; None on an error.

        The calibration is not applied to regions: it was fitted on the question about the whole pair.
        """
        answer = yield from self._answer(Ask(beside, photo, by_regions=True))
        if answer.error is not None:
            return None
        if answer.same is None:
            return log_odds
        if answer.same is False:
            return min(log_odds, self._sure_other)  # however likely the whole pair is
        return (log_odds + max(log_odds_of(answer) - logit(answer.threshold or 0.5), 0.0)) / 2

    def _is_open(self, log_odds: float) -> bool:
        return self._sure_other < log_odds < self._sure_same

    def _pair(self, a: int, b: int) -> Asking:
        """The mean log-odds of a pair: one order, and the other where the first leaves it open."""
        key = (min(a, b), max(a, b))
        if key not in self._log_odds:
            first = yield from self._ask(Ask(a, b))
            if first is None:
                return None
            self._log_odds[key] = [first]
            if self._is_open(self._weigh(key)):
                second = yield from self._ask(Ask(b, a))
                self._log_odds[key] += [] if second is None else [second]
        return self._weigh(key)

    def _ask(self, ask: Ask) -> Asking:
        answer = yield from self._answer(ask)
        return None if answer.error is not None else log_odds_of(answer)

    def _answer(self, ask: Ask) -> Generator[list[Ask], list[Answer], Answer]:
        answer = (yield [ask])[0]
        self.asked.append((ask, answer))
        if answer.error is not None:
            self._error[min(ask.a, ask.b), max(ask.a, ask.b)] = answer.error
        return answer

    def _weigh(self, pair: tuple[int, int]) -> float:
        log_odds = self._log_odds[pair]
        return self._weights.of_pair(sum(log_odds) / len(log_odds), float(self._alike[pair]))


def _sides(a: int, b: int, nearer: Mapping[int, float]) -> tuple[list[int], list[int]]:
    """Photos with a and photos with b, by how much nearer they are to a; the undecided join the larger."""
    sides = ([a], [b])
    for photo, margin in sorted(nearer.items(), key=lambda item: (-abs(item[1]), item[0])):
        larger = max(sides, key=len)
        (larger if margin == 0 else sides[0 if margin > 0 else 1]).append(photo)
    return sides


def letters(number: int) -> str:
    """a to z, then ba, bb and so on: outfits of one person are named in a fixed order."""
    name = ""
    while True:
        number, rest = divmod(number, 26)
        name = chr(ord("a") + rest) + name
        if number == 0:
            return name
