"""What the episodes of one session share: a folder, servers, results that nobody disturbed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")


class BrokenPromiseError(AssertionError):
    """An injury after which something is not as it must be. `str()` is one line."""


class Unavailable(Exception):  # noqa: N818 (nothing is wrong)
    """A kind that this machine cannot do; `str()` says why."""


@dataclass(frozen=True)
class Injury:
    """What was done in one episode.

    hit   the program was still at work when it came; an episode that was not hit proves nothing
    what  in a few words
    """

    hit: bool
    what: str


class Workplace:
    """A folder in which each episode gets one of its own, and what is made once for all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._made: dict[str, Any] = {}
        self._folders = 0
        self._used: list[Path] = []

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returned the first time."""
        if name not in self._made:
            self._made[name] = make()
        return cast(T, self._made[name])

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enters what is left when the session ends."""
        return self._stack.enter_context(context)

    def fresh(self) -> Path:
        """An empty folder for the episode."""
        self._folders += 1
        folder = self.folder / f"work-{self._folders}"
        folder.mkdir(parents=True)
        self._used.append(folder)
        return folder

    def used(self) -> list[Path]:
        """The folders given out since this was last asked."""
        used, self._used = self._used, []
        return used

    def __enter__(self) -> "Workplace":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
