"""What a source of weights is to a pull: it is surveyed, fetched piece by piece, and laid as files."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from curation.weights.web import Tell


@dataclass(frozen=True)
class Piece:
    """One download. `size`: bytes still to come; None: nobody says. `disks`: where they will lie."""

    size: int | None
    disks: tuple[Path, ...]
    fetch: Callable[[Tell], None]


class Source(Protocol):
    """Where weights of one or more cards come from. `commit`: of a hub's repository, once known."""

    commit: str | None

    def survey(self) -> list[Piece]:
        """Asks what there is to fetch. Raises FetchError."""
        ...

    def lay(self, card: str, target: Path) -> None:
        """Puts the fetched file or folder of a card at `target`. Raises FetchError, OSError."""
        ...

    def resumable(self) -> bool:
        """Whether its folder holds what a later pull goes on from."""
        ...

    def doubt(self) -> bool:
        """Called when a hash was wrong: forgets what was fetched. Whether fetching again may help."""
        ...


def link(file: Path, target: Path) -> None:
    """The file under another name too: no second copy where the file system can, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
