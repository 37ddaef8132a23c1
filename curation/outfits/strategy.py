"""What a strategy is: it says which pairs it wants judged, is sent the answers, and ends in verdicts.

A strategy is a generator. So it knows no server, no batch and no thread, and many people can be judged
side by side, while the questions about one of them follow each other.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from curation.ledger import Outcome
from curation.outfits.judge import Answer


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
