"""Which identities are one, and between which of them somebody or something has spoken already.

A merge names identities as they were first given, so two merges may speak of the same two people under
different names. Here they are compared by all the names that accepted joins put together.
"""

from collections.abc import Iterable


class Unions:
    """Sets of identities that grow, and the pairs of sets that a merge which is not accepted lies between."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._between: dict[str, dict[str, set[str]]] = {}

    def root(self, name: str) -> str:
        """One name for all identities of a set; it may be another one after `join`."""
        while (above := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(above, above)
            name = above
        return name

    def join(self, one: str, other: str) -> None:
        """Makes the two sets one; what was said of either holds for both."""
        into, gone = self.root(one), self.root(other)
        if into == gone:
            return
        self._parent[gone] = into
        for third, merges in self._between.pop(gone, {}).items():
            del self._between[third][gone]
            if third != into:
                self._note(into, third, merges)

    def speak(self, one: str, other: str, merge: str) -> None:
        """Notes that this merge lies between the two; inside one set it says nothing."""
        a, b = self.root(one), self.root(other)
        if a != b:
            self._note(a, b, {merge})

    def spoken(self, one: str, other: str) -> set[str]:
        """The merges that lie between the two sets."""
        return self._between.get(self.root(one), {}).get(self.root(other), set())

    def _note(self, a: str, b: str, merges: Iterable[str]) -> None:
        for one, other in ((a, b), (b, a)):
            self._between.setdefault(one, {}).setdefault(other, set()).update(merges)
