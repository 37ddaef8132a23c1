"""Joins of identities: proposed, accepted, reverted. Faces keep the identity that they were given.

merges.json is a list of entries; an accepted one makes its two identities one. To revert it is to take it
out of the union: the faces fall back to what they were given, and nothing is lost.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from curation.errors import ConfigError
from curation.fingerprint import fingerprint
from curation.storage import exists, join, read_bytes, write_bytes

FILE = "merges.json"
State = Literal["proposed", "accepted", "reverted"]


@dataclass(frozen=True)
class Merge:
    """Two identities that may be one.

    into    the identity that remains when the join is accepted
    other   the one that becomes part of it; both as they were first given
    cosine  mean over the pairs of their faces when it was found
    by      `search` (proposed), `rule` (accepted at once: one of them had one face), `person`
    log     [time (UTC), state] of every change, and what else there is to say of it
    """

    into: str
    other: str
    cosine: float
    state: State
    by: str
    log: list[list[str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """8 hex digits that name it on the command line."""
        return fingerprint(sorted([self.into, self.other]))[:8]

    def put(self, state: State, by: str, note: str | None = None) -> "Merge":
        """The entry in another state."""
        entry = [datetime.now(UTC).isoformat(timespec="seconds"), state, *([] if note is None else [note])]
        return replace(self, state=state, by=by, log=[*self.log, entry])


class Unions:
    """Sets of identities that grow, and the pairs of sets that a merge which is not accepted lies between.

    A merge names identities as they were first given, so two merges may speak of the same two people under
    different names. Here they are compared by all the names that accepted joins put together.
    """

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


class Merges:
    """The entries of an index, by id."""

    def __init__(self, folder: str, entries: list[Merge]) -> None:
        self._folder = folder
        self.entries = {entry.id: entry for entry in entries}
        self._unions: Unions | None = None  # as the entries stand; None: they changed

    def propose(self, into: str, other: str, cosine: float, by_rule: bool = False) -> bool:
        """Adds a join, accepted at once by the rule. True: new.

        What was said of these two before stays, under whatever names: no join is added where the two are one
        already, or where a merge that is proposed or reverted lies between any two identities of theirs.
        """
        unions = self.unions()
        if unions.root(into) == unions.root(other) or unions.spoken(into, other):
            return False
        entry = Merge(into, other, round(cosine, 4), "proposed", "search")
        entry = entry.put("accepted", "rule") if by_rule else entry.put("proposed", "search")
        self.entries[entry.id] = entry
        if by_rule:
            unions.join(into, other)
        else:
            unions.speak(into, other, entry.id)
        return True

    def named(self, ids: Iterable[str]) -> list[Merge]:
        """The entries of these ids. Raises ConfigError for an unknown one."""
        ids = list(ids)
        unknown = [key for key in ids if key not in self.entries]
        if unknown:
            raise ConfigError(
                f"{self._folder}: has no merge {', '.join(unknown)}; see persona identities list"
            )
        return [self.entries[key] for key in ids]

    def accept(self, ids: Iterable[str], note: str | None = None) -> None:
        """The two identities of each become one, whoever they are; `note` goes into the log.

        A person asks curation/identities/joining.py. Raises ConfigError for an unknown id.
        """
        for entry in self.named(ids):
            self.entries[entry.id] = entry.put("accepted", "person", note)
            self.unions().join(entry.into, entry.other)

    def revert(self, ids: Iterable[str]) -> list[str]:
        """They become two again; returns those that other joins still hold together.

        Raises ConfigError for an unknown id.
        """
        entries = self.named(ids)
        for entry in entries:
            self.entries[entry.id] = entry.put("reverted", "person")
        self._unions = None
        unions = self.unions()
        return [entry.id for entry in entries if unions.root(entry.into) == unions.root(entry.other)]

    def drop(self, identities: set[str]) -> int:
        """Deletes every entry that names one of these. Returns how many."""
        named = [key for key, entry in self.entries.items() if {entry.into, entry.other} & identities]
        for key in named:
            del self.entries[key]
        self._unions = None
        return len(named)

    def unions(self) -> Unions:
        """The sets that accepted joins make, and the merges in other states that lie between them."""
        if self._unions is None:
            self._unions = Unions()
            for entry in self.entries.values():
                if entry.state == "accepted":
                    self._unions.join(entry.into, entry.other)
            for key, entry in self.entries.items():
                if entry.state != "accepted":
                    self._unions.speak(entry.into, entry.other, key)
        return self._unions

    def aliases(self) -> dict[str, str]:
        """{identity: the one that it is now part of}, for those that are part of another."""
        parent: dict[str, str] = {}

        def root(name: str) -> str:
            while parent.get(name, name) != name:
                name = parent[name]
            return name

        for _, entry in sorted(self.entries.items()):
            if entry.state == "accepted":
                into, other = root(entry.into), root(entry.other)
                if into != other:
                    parent[other] = into
        return {name: root(name) for name in sorted(parent) if root(name) != name}

    def save(self) -> None:
        """Writes the file, by id, so that equal contents are equal bytes."""
        entries: list[dict[str, Any]] = [
            {"id": key, **asdict(self.entries[key])} for key in sorted(self.entries)
        ]
        write_bytes(join(self._folder, FILE), (json.dumps(entries, indent=1) + "\n").encode())


def read_merges(folder: str) -> Merges:
    """The joins of an index; none where there is no file. Raises ConfigError for a wrong value."""
    path = join(folder, FILE)
    if not exists(path):
        return Merges(folder, [])
    try:
        rows = json.loads(read_bytes(path))
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: is not the merges.json of an identity index")
    return Merges(folder, [_merge(row, f"{path}: entry {place}") for place, row in enumerate(rows, 1)])


def _merge(row: Any, where: str) -> Merge:
    """The entry, if every value in it is one that it may have."""
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: is no merge of two identities")
    wrong = [key for key, holds in _VALUES.items() if key not in row or not holds(row[key])]
    wrong += sorted(row.keys() - _VALUES.keys() - {"id"})
    if wrong:
        raise ConfigError(f"{where}: {wrong[0]} is missing, unknown or has a wrong value")
    return Merge(**{key: row[key] for key in _VALUES})


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_log(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(line, list) and len(line) >= 2 and all(map(_is_name, line)) for line in value
    )


_VALUES: dict[str, Callable[[Any], bool]] = {
    "into": _is_name,
    "other": _is_name,
    "cosine": lambda value: type(value) in (int, float) and math.isfinite(value),
    "state": lambda value: value in get_args(State),
    "by": _is_name,
    "log": _is_log,
}
