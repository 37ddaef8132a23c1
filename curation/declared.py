"""What a stage says of itself: its name, what it rules on, which numbers it compares, which reasons it gives.

Counts, the order in cards and reports, the table of thresholds, sweeps, plans and the table of reasons in
docs/operating.md are read off these declarations (`curation/funnel.py` has all of them in order).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from curation.ledger import ERROR, FAILED, NOT_MEASURED, REJECTED, Check, Counts, Verdict

Passes = Literal["at least", "at most", "above", "below"]


@dataclass(frozen=True)
class Number:
    """A recorded number in words: the quantity and not the name of what is ruled when it does not pass.

    passes  on which side of the number beside it this one must lie
    says    the quantity, which the unit follows
    per     how much of what is recorded makes one of the unit: 2**20 for bytes told in MiB
    """

    passes: Passes
    says: str
    unit: str = ""
    per: float = 1.0

    @property
    def quantity(self) -> str:
        """The quantity with its unit."""
        return ", ".join(filter(None, (self.says, self.unit)))

    def compared(self, score: float, threshold: float | None, passed: bool) -> str:
        """As `shorter side 489 px ≥ 256`. The sign is how the numbers lie; there is none where the number
        passed for another reason, as a film does where films are wanted."""
        # As many digits as tell the two apart.
        shown, beside = score / self.per, None if threshold is None else threshold / self.per
        texts = [_digits(shown, digits) for digits in (4, 6, 17)]
        besides = [None if beside is None else _digits(beside, digits) for digits in (4, 6, 17)]
        text, limit = next(
            ((a, b) for a, b in zip(texts, besides, strict=True) if a != b or shown == beside),
            (texts[-1], besides[-1]),
        )
        words = " ".join(filter(None, (self.says, text, self.unit)))
        if threshold is None or limit is None or passed != _passes(self.passes, score, threshold):
            return words
        sign = SIGNS[self.passes][0 if passed else 1]
        return f"{words} {sign} {limit}"


SIGNS: dict[Passes, tuple[str, str]] = {
    "at least": ("≥", "<"),
    "at most": ("≤", ">"),
    "above": (">", "≤"),
    "below": ("<", "≥"),
}
"""Between a number and the one beside it: where it passed, and where it did not."""


def _passes(passes: Passes, score: float, threshold: float) -> bool:
    return {
        "at least": score >= threshold,
        "at most": score <= threshold,
        "above": score > threshold,
        "below": score < threshold,
    }[passes]


def _digits(number: float, digits: int) -> str:
    return f"{number:,.0f}" if number == round(number) else f"{number:.{digits}g}"


@dataclass(frozen=True)
class Threshold:
    """A number that a stage compares with a setting.

    reason  given where the number does not pass, and the name of the recorded check
    key     path of the setting in pipelines.yaml
    passes  on which side of the setting the number must lie
    says    the number in words: the quantity, which the unit follows
    per     what the number is 1 of, in the unit of the setting: 2**20 for bytes beside MiB
    column  the stored column that holds the number, where the stage compares it as it is (with four digits)
    """

    reason: str
    key: str
    passes: Passes
    says: str
    per: float = 1.0
    column: str = ""
    unit: str = ""

    @property
    def number(self) -> Number:
        """What is shown of it."""
        return Number(self.passes, self.says, self.unit, self.per)

    @property
    def field(self) -> str:
        """The last part of the key: the field of the settings class that holds the setting."""
        return self.key.rpartition(".")[2]

    def check(self, score: float, threshold: float) -> Check:
        """The number beside its setting."""
        return Check(self.reason, float(score), float(threshold), _passes(self.passes, score, threshold))

    def in_words(self) -> str:
        """When the reason is given."""
        not_passed = {"at least": "below", "at most": "above", "above": "at most", "below": "at least"}
        return f"{self.number.quantity}: {not_passed[self.passes]} `{self.key}`"


@dataclass(frozen=True)
class Reason:
    """A reason that no single number decides. `key` is the setting that turns it on or off, if one does."""

    reason: str
    says: str
    key: str | None = None
    verdict: Verdict = REJECTED

    def in_words(self) -> str:
        """When the reason is given."""
        return self.says if self.key is None else f"{self.says} (`{self.key}`)"


BROKE_DOWN = Reason(ERROR, "the model broke down on it; the detail says how", verdict=FAILED)
NEVER_MEASURED = Reason(NOT_MEASURED, "its model was never asked about it", verdict=FAILED)


class Declared:
    """Base of all that rules on rows. A subclass that is no `Stage` declares decisions that a phase makes
    in another way.

    name           what decisions are stamped with
    unit           what one decision is about: photo, person, identity, group
    settings_type  the class of its settings; its hash is stamped on decisions
    thresholds     the numbers that it compares with settings, in the order of its checks
    reasons        its other reasons
    numbers        the numbers it records and compares with nothing of its thresholds, by the check's name
                   or the reason; "" for that of what it kept
    moves          further keys that move its decisions and are compared with no recorded number
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "photo"
    settings_type: ClassVar[Any] = None
    thresholds: ClassVar[tuple[Threshold, ...]] = ()
    reasons: ClassVar[tuple[Reason, ...]] = ()
    numbers: ClassVar[Mapping[str, Number]] = {}
    moves: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def all_reasons(cls) -> Iterator[Threshold | Reason]:
        """Everything that may stand as a reason of this stage."""
        yield from cls.reasons
        yield from cls.thresholds


def keys_of(stages: Iterable[type[Declared]]) -> set[str]:
    """The keys of pipelines.yaml that move a decision of the stages."""
    return {key for stage in stages for key in (*(each.key for each in stage.thresholds), *stage.moves)}


def counted(
    stages: Iterable[type[Declared]], decisions: Mapping[str, Iterable[Sequence[dict[str, Any]]]]
) -> Counts:
    """What each of the stages ruled, in their order; decisions of other stages are passed over.

    decisions  by the unit of the rows that they are about: those of every row
    """
    stages = tuple(stages)
    ruled: dict[str, list[dict[str, Any]]] = {stage.name: [] for stage in stages}
    for unit, rows in decisions.items():
        names = {stage.name for stage in stages if stage.unit == unit}
        for row in rows:
            for decision in row:
                if decision["stage"] in names:
                    ruled[decision["stage"]].append(decision)
    counts = Counts()
    for stage in stages:
        counts.count(stage.unit, [ruled[stage.name]])
    return counts
