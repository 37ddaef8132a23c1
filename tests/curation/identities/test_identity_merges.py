"""Joins of identities: what a person decided holds, under whatever name the same two come up again."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.identities.faces import Collector, FaceRows
from curation.identities.joining import propose_merges
from persona import main
from tests.curation.identities.test_identity_index import curate_faces, new_index, person_id


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
    propose_merges(parted.index, 0.0)
    assert parted.states() == ["accepted", "reverted"]


def test_a_merge_that_would_undo_what_a_person_reverted_is_refused(
    parted: Parted, capsys: pytest.CaptureFixture[str]
) -> None:
    """A and B come apart; X joins A by rule; to accept A and B again would put X into B."""
    where = parted.index.folder
    merges = parted.index.merges
    (one,) = (key for key, entry in merges.entries.items() if entry.state == "accepted")
    merges.revert([one])
    assert merges.propose(parted.a, parted.x, 0.8, by_rule=True)
    merges.save()
    assert main(["identities", "accept", where, one]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert one in line
    assert parted.reverted in line
    # Whoever says that the two are one after all, may.
    assert main(["identities", "accept", where, one, parted.reverted]) == 0
    assert len(parted.index.sizes()) == 1


class SharedPhoto:
    """Identities a, b, c of a face each; a and c on one photo. Proposed: a and b, b and c, d and e."""

    photo = "1" * 64

    def __init__(self, folder: Path) -> None:
        self.index = new_index(folder / "index")
        self.where = self.index.folder
        photos = [self.photo, "2" * 64, self.photo, "3" * 64, "4" * 64]
        people = [f"{photo}-{number}" for number, photo in enumerate(photos)]
        collector = Collector()
        nobody: list[str | None] = [None] * 5
        collector.add(
            FaceRows(people, [-1] * 5, nobody, nobody, [True] * 5, [-1] * 5), directions(*[(0, 0)] * 5)
        )
        rows, vectors = collector.close(str(folder / "faces"))
        names = {person: "abcde"[number] * 16 for number, person in enumerate(people)}
        given = [names[person] for person in rows.person_id]
        self.index.add(rows, vectors, np.arange(5), given, np.zeros(0))
        merges = self.index.merges
        for one, other, cosine in (("a", "b", 0.9), ("b", "c", 0.8), ("d", "e", 0.7)):
            assert merges.propose(one * 16, other * 16, cosine)
        merges.save()
        self.ids = {entry.into[0] + entry.other[0]: key for key, entry in merges.entries.items()}

    def states(self) -> dict[str, str]:
        return {pair: self.index.merges.entries[key].state for pair, key in self.ids.items()}


@pytest.fixture
def shared(tmp_path: Path) -> SharedPhoto:
    return SharedPhoto(tmp_path)


def test_two_faces_of_one_photo_stay_two_people_when_all_merges_are_accepted(
    shared: SharedPhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identities", "accept", shared.where, "--all"]) == 0
    said = capsys.readouterr()
    assert shared.states() == {"ab": "accepted", "bc": "proposed", "de": "accepted"}
    (line,) = said.err.splitlines()
    for word in (shared.ids["bc"], "a" * 16, "c" * 16, shared.photo):
        assert word in line
    assert "1 refused" in said.out
    # Again it is refused, now by what is accepted already, and --json says so.
    assert main(["identities", "accept", shared.where, "--all", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["accepted"], list(again["refused"])) == ([], [shared.ids["bc"]])


def test_a_named_merge_of_two_faces_of_one_photo_is_refused_and_changes_nothing(
    shared: SharedPhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identities", "accept", shared.where, *shared.ids.values()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert set(shared.states().values()) == {"proposed"}


def test_a_person_who_knows_better_joins_two_faces_of_one_photo_and_the_log_says_so(
    shared: SharedPhoto,
) -> None:
    accept = ["identities", "accept", shared.where]
    assert main([*accept, "--all", "--despite-shared-photo"]) == 2
    assert main([*accept, *shared.ids.values(), "--despite-shared-photo"]) == 2
    assert main([*accept, shared.ids["ab"]]) == 0
    assert main([*accept, shared.ids["bc"], "--despite-shared-photo"]) == 0
    assert shared.index.sizes() == {"a" * 16: 3, "d" * 16: 1, "e" * 16: 1}
    first, last = (shared.index.merges.entries[shared.ids[pair]].log[-1] for pair in ("ab", "bc"))
    assert first[1:] == ["accepted"]
    assert last[1:] == ["accepted", "despite a shared photo"]
    # A photo that is forgotten must leave nothing: the log does not name it.
    assert shared.photo not in (Path(shared.where) / "merges.json").read_text()


def test_reverting_one_of_several_merges_says_that_the_others_still_hold(
    shared: SharedPhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    merges = shared.index.merges
    merges.propose("a" * 16, "e" * 16, 0.6)
    merges.propose("a" * 16, "d" * 16, 0.6)
    merges.save()
    assert main(["identities", "accept", shared.where, "--all"]) == 0
    capsys.readouterr()
    assert main(["identities", "revert", shared.where, shared.ids["de"]]) == 0
    assert "still one" in capsys.readouterr().err
