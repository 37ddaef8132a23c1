"""Identities: linked by more than a threshold, told apart inside a photo, in any order the same."""

import numpy as np
import pytest

from curation.identities.cluster import agglomerate, prototype_cosines
from curation.identities.graph import build_edges
from curation.settings.groups import IdentitiesSettings

SETTINGS = IdentitiesSettings(neighbours=8, link_cosine=0.5, merge_cosine=0.5, prototype_cosine=0.5)


def faces(seed: int, people: int, each: int, noise: float, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(unit vectors [people · each, size], person of each)."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(people, size))
    vectors = np.repeat(middles, each, axis=0) + noise * random.normal(size=(people * each, size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), each)


def clusters(
    vectors: np.ndarray,
    photos: np.ndarray | None = None,
    hints: np.ndarray | None = None,
    settings: IdentitiesSettings = SETTINGS,
) -> np.ndarray:
    """Cluster of each face; by default every face is on a photo of its own, without a hint."""
    count = len(vectors)
    photos = np.arange(count) if photos is None else photos
    given = np.full(count, -1) if hints is None else hints
    edges = build_edges(vectors, photos, given, settings)
    separate = given if settings.hints == "separate" else None
    return agglomerate(vectors, photos, separate, edges, settings.merge_cosine)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def test_people_are_found_as_they_are() -> None:
    vectors, person = faces(1, people=40, each=6, noise=0.5)
    assert partition(clusters(vectors)) == partition(person)


def test_shuffled_faces_give_the_same_partition() -> None:
    vectors, _ = faces(2, people=30, each=5, noise=0.9)
    order = np.random.default_rng(0).permutation(len(vectors))
    straight = partition(clusters(vectors))
    shuffled = {frozenset(int(order[i]) for i in group) for group in partition(clusters(vectors[order]))}
    assert shuffled == straight


def test_two_faces_of_one_photo_are_never_one_person_however_alike() -> None:
    vectors, _ = faces(3, people=1, each=4, noise=0.1)
    photos = np.array([0, 0, 1, 2])
    labels = clusters(vectors, photos)
    assert labels[0] != labels[1]
    # And no third face joins the two.
    assert len(partition(labels)) == 2


def test_hints_separate_people_only_where_the_pipeline_says_so() -> None:
    vectors, _ = faces(4, people=1, each=4, noise=0.1)
    hints = np.array([0, 0, 1, -1])
    separate = SETTINGS.model_copy(update={"hints": "separate"})
    assert len(partition(clusters(vectors, hints=hints))) == 1
    labels = clusters(vectors, hints=hints, settings=separate)
    assert labels[0] == labels[1]
    assert labels[2] != labels[0]


def test_a_chain_of_likenesses_is_no_person() -> None:
    """Neighbours on an arc are alike and its ends are strangers: components would join them all."""
    angles = np.linspace(0, np.pi, 13)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = clusters(vectors, settings=SETTINGS.model_copy(update={"link_cosine": 0.9}))
    assert labels[0] != labels[-1]
    for group in partition(labels):
        members = vectors[sorted(group)]
        assert float((members @ members.T).mean()) > 0.4


def test_one_sided_neighbours_without_shared_ones_are_not_linked() -> None:
    """A hub is in everybody's list; those who are not in the hub's list need shared neighbours."""
    settings = SETTINGS.model_copy(update={"neighbours": 2, "link_cosine": 0.6, "min_shared": 1})
    hub = np.array([1.0, 0, 0, 0, 0, 0])
    spokes = np.eye(6)[1:] * np.array([0.6, 0.62, 0.64, 0.66, 0.68])[:, None]
    vectors = np.concatenate([hub[None], spokes + hub * 1.0])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    strict = build_edges(vectors, np.arange(6), np.full(6, -1), settings.model_copy(update={"min_shared": 9}))
    loose = build_edges(vectors, np.arange(6), np.full(6, -1), settings)
    assert len(strict.left) < len(loose.left)


def test_the_prototype_is_that_of_the_others() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    cosines = prototype_cosines(vectors, np.array([0, 0, 0]))
    assert cosines[2] == pytest.approx(0.0)
    assert cosines[0] == pytest.approx(np.cos(np.pi / 4), abs=1e-4)
    assert prototype_cosines(vectors, np.array([0, 0, 2]))[2] == 1.0


def test_average_linkage_is_the_mean_over_all_pairs() -> None:
    """Two tight pairs are joined by the mean of the four cosines between them, not by the best."""
    angles = np.radians([0, 8, 50, 58])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    between = float(np.mean(vectors[:2] @ vectors[2:].T))
    assert float(np.max(vectors[:2] @ vectors[2:].T)) > between + 0.02
    below = SETTINGS.model_copy(update={"merge_cosine": between + 0.01})
    above = SETTINGS.model_copy(update={"merge_cosine": between - 0.01})
    assert partition(clusters(vectors, settings=below)) == {frozenset({0, 1}), frozenset({2, 3})}
    assert partition(clusters(vectors, settings=above)) == {frozenset({0, 1, 2, 3})}
