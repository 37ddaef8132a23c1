"""Episodes one after the other: which kind, drawn by the seed; what came of each; how many in all."""

import importlib
import pkgutil
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.faults import kinds as kinds_package
from tests.faults.workplace import BrokenPromiseError, Unavailable, Workplace
from tests.forked import preload


def kind_names() -> list[str]:
    """Of every kind."""
    return sorted(module.name for module in pkgutil.iter_modules(kinds_package.__path__))


def kind_of(name: str) -> ModuleType:
    """A kind by its name; what it needs is imported now."""
    return importlib.import_module(f"{kinds_package.__name__}.{name}")


@dataclass(frozen=True)
class Episode:
    """One injury and what came of it.

    outcome   identical; missed: it had ended before; differs; unavailable: not on this machine
    what      in a few words; for `differs` what is wrong
    """

    number: int
    kind: str
    outcome: str
    what: str
    seconds: float


@dataclass
class Tally:
    """Of all episodes so far."""

    kills: int = 0
    identical: int = 0
    missed: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Counts one. An injury that found the program at its end is no kill."""
        if episode.outcome == "unavailable":
            self.unavailable[episode.kind] = episode.what
            return
        if episode.outcome == "missed":
            self.missed += 1
            return
        self.kills += 1
        self.by_kind[episode.kind] += 1
        if episode.outcome == "identical":
            self.identical += 1
        else:
            self.differing.append(f"{episode.kind} {episode.number}: {episode.what}")

    def to_json(self) -> dict[str, Any]:
        """The last line of the command."""
        return {
            "kills": self.kills,
            "identical": self.identical,
            "missed": self.missed,
            "by_kind": dict(sorted(self.by_kind.items())),
            "differing": self.differing,
            "unavailable": self.unavailable,
        }


def episodes(
    folder: Path, seed: int, kinds: Sequence[str], numbers: Iterator[int], each: int | None = None
) -> Iterator[Episode]:
    """Episodes of these numbers: the kind is drawn, what is done is a function of seed, number and kind.

    `each`: a kind that has had so many kills is not drawn again, and the episodes end when all have.
    `folder` holds what they leave: of an episode that went well nothing, of another one everything.
    """
    chosen = {name: kind_of(name) for name in kinds}
    preload("tests.preloaded", *(name for kind in chosen.values() for name in getattr(kind, "PRELOADED", ())))
    out: set[str] = set()
    kills: Counter[str] = Counter()
    with Workplace(folder) as place:
        for number in numbers:
            left = {name: kind.SHARE for name, kind in chosen.items() if name not in out}
            if not left:
                return
            drawn = random.Random(f"{seed} {number}")
            name = drawn.choices(list(left), list(left.values()))[0]
            episode = _episode(place, number, name, chosen[name], random.Random(f"{seed} {number} {name}"))
            kills[name] += episode.outcome in ("identical", "differs")
            if episode.outcome == "unavailable" or kills[name] == each:
                out.add(name)
            used = place.used()
            if episode.outcome != "differs":
                for left_over in used:
                    shutil.rmtree(left_over, ignore_errors=True)
            yield episode


def _episode(place: Workplace, number: int, name: str, kind: ModuleType, drawn: random.Random) -> Episode:
    began = time.monotonic()
    try:
        injury = kind.injure(place, drawn)
        outcome, what = "identical" if injury.hit else "missed", injury.what
    except Unavailable as error:
        outcome, what = "unavailable", str(error)
    except (BrokenPromiseError, TimeoutError) as error:
        outcome, what = "differs", " ".join(str(error).split())
    return Episode(number, name, outcome, what, time.monotonic() - began)
