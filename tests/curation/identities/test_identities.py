"""Identities: linked by more than a threshold, told apart inside a photo, in any order the same."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.engine import Answer, InlineEngine, T, Task, Work
from curation.identities.control import prototype_cosines
from curation.identities.exact_cosines import on_grid
from curation.identities.false_match import measured_tail
from curation.identities.grouping import FaceSet, Grouping, build_edges, group_faces
from curation.identities.linking import fixed_cosines
from curation.identities.search import find_pairs
from curation.identities.vectors import Vectors, write_vectors
from curation.settings.base import Resources
from curation.settings.identities import IdentitiesSettings, SearchSettings

SETTINGS = IdentitiesSettings(
    neighbours=8, link_cosine=0.5, merge_cosine=0.5, prototype_cosine=0.5, false_links=None
)


def faces(seed: int, people: int, each: int, noise: float, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(unit vectors [people · each, size], person of each)."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(people, size))
    vectors = np.repeat(middles, each, axis=0) + noise * random.normal(size=(people * each, size))
    return units(vectors), np.repeat(np.arange(people), each)


def units(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def on_arc(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> "Store":
    return Store(tmp_path)


class Store:
    """Groups vectors in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder / "faces")

    def write(self, vectors: np.ndarray) -> Vectors:
        return write_vectors(self.folder, iter([vectors]), len(vectors), vectors.shape[1])

    def group(
        self,
        vectors: np.ndarray,
        photos: np.ndarray | None = None,
        hints: np.ndarray | None = None,
        settings: IdentitiesSettings = SETTINGS,
        **given: np.ndarray,
    ) -> Grouping:
        """By default every face is a seed on a photo of its own, without a hint, in one collection."""
        count = len(vectors)
        return group_faces(
            InlineEngine(),
            self.folder,
            FaceSet(
                self.write(vectors),
                np.arange(count) if photos is None else photos,
                np.full(count, -1) if hints is None else hints,
                given.get("blocks", np.zeros(count, int)),
                given.get("seeds", np.ones(count, bool)),
                given.get("strangers", np.zeros(0)),
                given.get("headwear"),
            ),
            settings,
        )

    def clusters(self, vectors: np.ndarray, *words: Any, **named: Any) -> np.ndarray:
        return self.group(vectors, *words, **named).label


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def with_settings(**changed: Any) -> IdentitiesSettings:
    return SETTINGS.model_copy(update=changed)


def test_people_are_found_as_they_are(store: Store) -> None:
    vectors, person = faces(1, people=40, each=6, noise=0.5)
    assert partition(store.clusters(vectors)) == partition(person)


def test_people_are_found_as_they_are_when_only_cells_are_searched(store: Store) -> None:
    vectors, person = faces(1, people=120, each=6, noise=0.5, size=160)
    cells = with_settings(search=SearchSettings(exact_faces=1, cell_faces=32))
    assert partition(store.clusters(vectors, settings=cells)) == partition(person)


def test_cells_find_nearly_all_pairs_that_comparing_all_finds_and_no_others(store: Store) -> None:
    vectors, _ = faces(5, people=150, each=5, noise=0.6, size=160)
    written = store.write(vectors)

    def pairs(exact_faces: int) -> set[tuple[int, int]]:
        settings = SearchSettings(exact_faces=exact_faces, cell_faces=64)
        found = find_pairs(InlineEngine(), store.folder, written, 0.6, settings, Resources())
        assert (found.left < found.right).all()
        return set(zip(found.left.tolist(), found.right.tolist(), strict=True))

    laid = on_grid(vectors)
    every = {(i, j) for i, j in np.argwhere(np.triu(laid @ laid.T >= np.float32(0.6), 1)).tolist()}
    assert pairs(10_000) == every
    assert pairs(1) <= every
    assert len(pairs(1)) >= 0.97 * len(every)


class CountingEngine(InlineEngine):
    """Counts the tasks that it is given."""

    tasks = 0

    def map(
        self, opener: Callable[[T], Work], job: T, tasks: Sequence[Task], resources: Resources
    ) -> Iterator[Answer]:
        self.tasks += len(tasks)
        return super().map(opener, job, tasks, resources)


@pytest.mark.parametrize("how", ["exact", "cells"])
@pytest.mark.parametrize("newcomers", [0, 60, 5000])
def test_pairs_with_newcomers_are_those_of_all_pairs_that_hold_one(
    store: Store, how: str, newcomers: int
) -> None:
    vectors, _ = faces(6, people=3000, each=3, noise=0.6, size=16)
    written = store.write(vectors)
    # Cells of more faces than one product compares at a time.
    settings = SearchSettings(
        exact_faces=10_000 if how == "exact" else 1, cell_faces=4500, probes=2, tables=1
    )
    fresh = np.zeros(len(vectors), bool)
    fresh[np.random.default_rng(0).permutation(len(vectors))[:newcomers]] = True

    def pairs(engine: CountingEngine, fresh: np.ndarray | None) -> list[tuple[int, int, float]]:
        found = find_pairs(engine, store.folder, written, 0.8, settings, Resources(), fresh)
        columns = (found.left.tolist(), found.right.tolist(), found.cosine.tolist())
        return list(zip(*columns, strict=True))

    engine = CountingEngine()
    every = pairs(CountingEngine(), None)
    assert len(every) > 1000
    assert pairs(engine, fresh) == [pair for pair in every if fresh[pair[0]] or fresh[pair[1]]]
    if how == "exact":  # a task compares 4096 newcomers with everyone
        assert engine.tasks == -(-newcomers // 4096)


def test_cells_are_searched_where_so_few_vectors_differ_that_most_cells_stay_empty(store: Store) -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 1400, axis=0)
    settings = SearchSettings(exact_faces=1, cell_faces=16, probes=1, tables=1)
    found = find_pairs(InlineEngine(), store.folder, store.write(vectors), 0.5, settings, Resources())
    assert len(found) == 3 * 1400 * 1399 // 2


@pytest.mark.parametrize("exact_faces", [10_000, 1])
def test_shuffled_faces_give_the_same_partition(store: Store, exact_faces: int) -> None:
    """Faces are numbered by their ids, so a shuffled collection is the same faces with the same numbers; here
    the numbers themselves are shuffled, which moves nothing but ties and, by cells, the sample."""
    vectors, _ = faces(2, people=30, each=5, noise=0.9)
    settings = with_settings(search=SearchSettings(exact_faces=exact_faces, probes=8, cell_faces=16))
    order = np.random.default_rng(0).permutation(len(vectors))
    straight = partition(store.clusters(vectors, settings=settings))
    again = partition(store.clusters(vectors[order], settings=settings))
    assert {frozenset(int(order[i]) for i in group) for group in again} == straight


def test_two_faces_of_one_photo_are_never_one_person_however_alike(store: Store) -> None:
    vectors, _ = faces(3, people=1, each=4, noise=0.1)
    labels = store.clusters(vectors, np.array([0, 0, 1, 2]))
    assert labels[0] != labels[1]
    # And no third face joins the two.
    assert len(partition(labels)) == 2


def test_hints_separate_people_only_where_the_pipeline_says_so(store: Store) -> None:
    vectors, _ = faces(4, people=1, each=4, noise=0.1)
    hints = np.array([0, 0, 1, -1])
    assert len(partition(store.clusters(vectors, hints=hints))) == 1
    labels = store.clusters(vectors, hints=hints, settings=with_settings(hints="separate"))
    assert labels[0] == labels[1]
    assert labels[2] != labels[0]


def test_a_chain_of_likenesses_is_no_person(store: Store) -> None:
    """Neighbours on an arc are alike and its ends are strangers: components would join them all."""
    vectors = on_arc(*np.linspace(0, 180, 13).tolist())
    labels = store.clusters(vectors, settings=with_settings(link_cosine=0.9))
    assert labels[0] != labels[-1]
    for group in partition(labels):
        members = vectors[sorted(group)]
        assert float((members @ members.T).mean()) > 0.4


def test_one_sided_neighbours_without_shared_ones_are_not_linked(store: Store) -> None:
    """A hub is in everybody's list; those who are not in the hub's list need shared neighbours."""
    hub = np.array([1.0, 0, 0, 0, 0, 0])
    spokes = np.eye(6)[1:] * np.array([0.6, 0.62, 0.64, 0.66, 0.68])[:, None]
    written = store.write(units(np.concatenate([hub[None], spokes + hub * 1.0])))
    pairs = find_pairs(InlineEngine(), store.folder, written, 0.6, SearchSettings(), Resources())

    def edges(min_shared: int) -> int:
        settings = with_settings(neighbours=2, link_cosine=0.6, min_shared=min_shared)
        zeros = np.zeros(6, int)
        cosines = fixed_cosines(settings)
        return len(build_edges(pairs, np.arange(6), zeros - 1, zeros, np.ones(6, bool), cosines, settings))

    assert edges(min_shared=9) < edges(min_shared=1)


def test_the_prototype_is_that_of_the_others(store: Store) -> None:
    vectors = store.write(np.array([[1, 0], [1, 0], [0, 1]], np.float32))
    cosines = prototype_cosines(vectors, np.array([0, 0, 0]))
    assert cosines[2] == pytest.approx(0.0)
    assert cosines[0] == pytest.approx(np.cos(np.pi / 4), abs=1e-4)
    assert prototype_cosines(vectors, np.array([0, 0, 2]))[2] == 1.0


def test_average_linkage_is_the_mean_over_all_pairs(store: Store) -> None:
    """Two tight pairs are joined by the mean of the four cosines between them, not by the best."""
    vectors = on_arc(0, 8, 50, 58)
    between = float(np.mean(vectors[:2] @ vectors[2:].T))
    assert float(np.max(vectors[:2] @ vectors[2:].T)) > between + 0.02
    below, above = with_settings(merge_cosine=between + 0.01), with_settings(merge_cosine=between - 0.01)
    strict = with_settings(merge_cosine=between + 0.01, attach_margin=2.0)
    assert partition(store.clusters(vectors, settings=below)) == {frozenset({0, 1}), frozenset({2, 3})}
    assert partition(store.clusters(vectors, settings=strict)) == {frozenset({0, 1}), frozenset({2, 3})}
    assert partition(store.clusters(vectors, settings=above)) == {frozenset({0, 1, 2, 3})}


def test_two_tight_halves_are_parted_and_a_loose_person_is_not(store: Store) -> None:
    random = np.random.default_rng(6)
    first, second = random.normal(size=(2, 64))
    alike = units(np.stack([first, 0.55 * first + 0.83 * second]))
    halves = units(np.repeat(alike, 5, axis=0) + 0.03 * random.normal(size=(10, 64)))
    generous = with_settings(link_cosine=0.3, merge_cosine=0.3)
    assert partition(store.clusters(halves, settings=generous)) == {
        frozenset(range(5)),
        frozenset(range(5, 10)),
    }
    found = store.group(halves, settings=generous.model_copy(update={"split_gap": 0.6}))
    assert len(partition(found.label)) == 1
    assert [suspect.kind for suspect in found.suspects] == ["one_of_two"]
    loose, _ = faces(7, people=1, each=10, noise=0.8)
    assert len(partition(store.clusters(loose, settings=generous))) == 1


def test_two_faces_of_another_person_are_parted_from_many_and_a_single_one_stays(store: Store) -> None:
    random = np.random.default_rng(7)
    centres = units(random.normal(size=(2, 64)))
    alike = units(np.stack([centres[0], centres[0] + 0.9 * centres[1]]))  # a look-alike, cosine about .7
    generous = with_settings(link_cosine=0.4, merge_cosine=0.4)
    for strangers, parts in ((2, 2), (1, 1)):
        faces = np.repeat(alike, [8, strangers], axis=0)
        faces = units(faces + 0.03 * random.normal(size=faces.shape))
        assert len(partition(store.clusters(faces, settings=generous))) == parts


def test_where_an_embedder_is_moved_by_hats_halves_that_only_a_hat_sets_apart_stay_one_person(
    store: Store,
) -> None:
    random = np.random.default_rng(8)
    bare, worn = np.eye(64)[:2]
    alike = np.stack([bare, 0.68 * bare + 0.73 * worn])  # a gap of about 0.3
    halves = units(np.repeat(alike, 5, axis=0) + 0.03 * random.normal(size=(10, 64)))
    generous = with_settings(link_cosine=0.3, merge_cosine=0.3, split_gap_headwear=0.4)
    hat = np.repeat([0, 1], 5)
    found = store.group(halves, settings=generous, headwear=hat)
    assert len(partition(found.label)) == 1
    assert [suspect.kind for suspect in found.suspects] == ["one_of_two"]
    # Nothing is explained where both wear one, nothing is known, or the halves are too far apart.
    for other in (np.ones(10, int), np.full(10, -1)):
        assert len(partition(store.clusters(halves, settings=generous, headwear=other))) == 2
    for gap in (0.25, None):  # None: hats excuse nothing
        near = generous.model_copy(update={"split_gap_headwear": gap})
        assert len(partition(store.clusters(halves, settings=near, headwear=hat))) == 2


def test_a_face_that_is_no_seed_links_nobody_and_is_attached_only_beyond_doubt(store: Store) -> None:
    vectors = units(
        np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [1, 0.2, 0], [1, 1, 0]], np.float64)
    )
    seeds = np.array([1, 1, 1, 1, 0, 0], bool)
    found = store.group(vectors, seeds=seeds, settings=with_settings(link_cosine=0.6, merge_cosine=0.6))
    assert found.label[4] == found.label[0]
    assert found.label[5] not in (found.label[0], found.label[2])
    assert found.best[5] - found.second[5] < SETTINGS.attach_margin


def test_a_few_hundred_strangers_give_nearly_the_tail_that_many_give() -> None:
    random = np.random.default_rng(6)
    exact = 0.05 + 0.1 * 3.09  # N(0.05, 0.1) exceeds it with a probability of 1e-3
    found = []
    for _ in range(100):
        curve = measured_tail(random.normal(0.05, 0.1, 400))
        assert curve is not None
        found.append(curve.threshold(1e-3))
    assert np.mean(found) == pytest.approx(exact, abs=0.02)
    assert np.percentile(np.abs(np.array(found) - exact), 90) < 0.07


def test_a_handful_of_strangers_has_no_tail() -> None:
    assert measured_tail(np.linspace(0, 0.3, 19)) is None


@pytest.mark.parametrize("doubled", [0.005, 0.02, 0.1])
def test_photos_that_show_one_person_twice_do_not_raise_the_cosine_that_links(doubled: float) -> None:
    """Collages, mirrors, a second box on one body: their two faces are no strangers."""
    random = np.random.default_rng(4)
    strangers = random.normal(0.04, 0.08, 984)
    clean = measured_tail(strangers)
    twice = strangers.copy()
    count = round(doubled * len(twice))
    twice[:count] = random.normal(0.85, 0.05, count)
    curve = measured_tail(twice)
    assert curve is not None
    assert clean is not None
    assert curve.doubled == count
    assert clean.doubled == 0
    for rate in (1e-4, 1e-7):
        assert curve.threshold(rate) == pytest.approx(clean.threshold(rate), abs=0.05)
