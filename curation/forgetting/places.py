"""Where persona wrote something that may hold people: runs, datasets, identity indices, labels."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from curation.absolute import absolute_path
from curation.errors import ConfigError, PersonaError
from curation.excluded.tombstone_store import STORE_VARIABLE, TombstoneStore, store_beside
from curation.identities.index import is_index
from curation.run_folder import Run, is_dataset
from curation.storage import exists, is_folder, is_local, join, list_names

Kind = Literal["run", "dataset", "index", "labels"]
_DEPTH = 3  # runs/, runs/demo/, runs/demo/run/
_TELLS: tuple[tuple[Callable[[str], bool], Kind], ...] = (
    (lambda folder: Run(folder).exists(), "run"),
    (is_dataset, "dataset"),
    (is_index, "index"),
)


@dataclass(frozen=True, order=True)
class Place:
    """A folder (path or URL), or a file of labels."""

    path: str
    kind: Kind


def find_places(paths: Sequence[str]) -> list[Place]:
    """All places at or below `paths`, and the identity indices that their runs name; sorted.

    A run stands for its dataset and report. Raises ConfigError for a path that is not there or is nothing
    of persona's.
    """
    found: set[Place] = set()
    for path in paths:
        if not exists(path):
            raise ConfigError(f"{path}: there is no such folder or file")
        below = set(_places(path, _DEPTH))
        if not below:
            raise ConfigError(f"{path}: holds no run, dataset or identity index, and is no file of labels")
        found |= below
    for place in list(found):
        if place.kind == "run" and (index := _index_of(place.path)) is not None:
            found.add(Place(index, "index"))
    return sorted(found)


def store_for(paths: Sequence[str]) -> str:
    """The store that the command writes: $PERSONA_FORGOTTEN, else that of the first run below these paths,
    else `forgotten` in a folder of runs or beside a place itself.
    """
    if chosen := os.environ.get(STORE_VARIABLE):
        return absolute_path(chosen)
    for path in paths:
        for place in sorted(_places(path, _DEPTH)):
            if place.kind == "run":
                return _store_of_run(place.path)
    path = paths[0].rstrip("/")
    is_place = any(tells(path) for tells, _ in _TELLS) or not is_folder(path)
    return store_beside(path) if is_place else join(path, "forgotten")


def stores_of_runs(places: Sequence[Place]) -> list[str]:
    """The stores that these runs obey: those of their pipelines, and those that lie beside them."""
    found = set()
    for place in places:
        if place.kind == "run":
            found.add(_store_of_run(place.path))
            others = (store_beside(place.path), _chosen_store(place.path))
            found |= {store for store in others if store and exists(TombstoneStore(store).file)}
    return sorted(found)


def _store_of_run(run: str) -> str:
    """The one that a wish is written to: of a run in an object store none of this machine, which others that
    run on it do not see.
    """
    chosen = _chosen_store(run)
    return chosen if chosen and (is_local(run) or not is_local(chosen)) else store_beside(run)


def _chosen_store(run: str) -> str | None:
    try:
        return Run(run).pipeline()[1].photos.screen.forgotten
    except PersonaError:  # of another version
        return None


def _places(path: str, depth: int) -> Iterator[Place]:
    if path.endswith((".csv", ".parquet")) and not is_folder(path):
        yield Place(path, "labels")
        return
    for tells, kind in _TELLS:
        if tells(path):
            yield Place(path, kind)
            return
    if depth:
        for name in list_names(path):
            if not name.startswith("."):
                below = join(path, name)
                if is_folder(below):
                    yield from _places(below, depth - 1)


def _index_of(run: str) -> str | None:
    try:
        folder = Run(run).pipeline()[1].identities.index
    except PersonaError:
        return None
    return folder if folder is not None and is_index(folder) else None
