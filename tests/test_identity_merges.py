"""Joins of identities: what a person decided holds, under whatever name the same two come up again."""

from pathlib import Path

import numpy as np
import pytest

from curation.engine import Job
from curation.identities.propose import propose_merges
from tests.test_identity_index import NO_PIPELINE, curate_faces, new_index, person_id


def directions(*degrees: tuple[float, float]) -> np.ndarray:
    """Unit vectors by longitude and latitude: float32 [n, 3]."""
    along, up = np.radians(np.array(degrees)).T
    return np.stack([np.cos(up) * np.cos(along), np.cos(up) * np.sin(along), np.sin(up)], axis=1).astype(
        "<f4"
    )


class Parted:
    """An index in which a face tied X to B, a person parted the two, and A and B were accepted as one."""

    def __init__(self, folder: Path) -> None:
        # Faces 0 and 1 are A, 2 and 3 B, 4 is X, between B and X lie 5 and, not in the index yet, the rest.
        between = [(25.0, 0.0)] * 6
        self.vectors = directions((0, 70), (1, 70), (0, 0), (1, 0), (65, 0), (30, 0), *between)
        self.folder = folder
        self.index = new_index(folder / "index")
        given = curate_faces(folder, "first", self.vectors, [0, 1, 2, 3, 4], self.index)
        self.a, self.b, self.x = (given[person_id(face)] for face in (0, 2, 4))
        assert len({self.a, self.b, self.x}) == 3
        curate_faces(folder, "second", self.vectors, [5], self.index)
        merges = self.index.merges
        (self.reverted,) = merges.entries
        assert merges.aliases() == {self.x: self.b}
        merges.revert([self.reverted])
        assert merges.propose(self.a, self.b, 0.3)
        merges.accept([key for key in merges.entries if key != self.reverted])
        merges.save()

    def states(self) -> list[str]:
        return sorted(entry.state for entry in self.index.merges.entries.values())

    def x_stands_alone(self) -> bool:
        return self.x in self.index.sizes() and self.index.aliases() == {self.b: self.a}


@pytest.fixture
def parted(tmp_path: Path) -> Parted:
    return Parted(tmp_path)


def test_a_join_that_a_person_reverted_is_not_made_again_by_a_run_under_another_name(parted: Parted) -> None:
    curate_faces(parted.folder, "third", parted.vectors, list(range(6, 12)), parted.index)
    assert parted.x_stands_alone()
    assert parted.states() == ["accepted", "reverted"]


def test_a_join_that_a_person_reverted_is_not_proposed_again_under_another_name(parted: Parted) -> None:
    propose_merges(parted.index, 0.0, Job(str(parted.folder), NO_PIPELINE, {}))
    assert parted.states() == ["accepted", "reverted"]
