"""Identities over collections: frozen ids, growth, births, merges that can be taken back."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.engine import InlineEngine
from curation.evaluation.identities import pair_counts
from curation.fragments import Fragment
from curation.identities.assign import assign_with
from curation.identities.faces import FaceRows
from curation.identities.forget import forget
from curation.identities.index import IdentityIndex
from curation.identities.vectors import write_vectors
from curation.run_folder import Run
from curation.settings.identities import IdentitiesSettings
from persona import main
from tests.drawn_pipeline import curate, persona, rows_of, write_config
from tests.drawn_pipeline import settings as drawn_settings

SETTINGS = IdentitiesSettings(link_cosine=0.5, merge_cosine=0.5, false_links=None)
FOUND = {"stage": "face", "verdict": "kept"}


class Faces:
    """Unit vectors of people; a face's person_id is a hash-like name that says nothing of the person."""

    def __init__(self, seed: int, people: int, most: int, noise: float) -> None:
        random = np.random.default_rng(seed)
        each = random.integers(1, most + 1, people)
        self.person = np.repeat(np.arange(people), each)
        vectors = np.repeat(random.normal(size=(people, 64)), each, axis=0)
        vectors += noise * random.normal(size=vectors.shape)
        order = random.permutation(len(vectors))
        self.person = self.person[order]
        vectors = vectors[order]
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")

    def __len__(self) -> int:
        return len(self.person)


def person_id(face: int) -> str:
    return f"{face * 2654435761 % 2**32:064x}-0"


def write_fragment(folder: Path, photos: list[list[tuple[str, np.ndarray]]]) -> list[Fragment]:
    """The one fragment of `people/` of photos with these people: (person_id, embedding) each."""
    fragment = Fragment(0, "0" * 16)
    keys = [str(number) for number in range(len(photos))]
    none = pa.nulls(len(keys), pa.string())
    (folder / "_photos").mkdir(parents=True, exist_ok=True)
    table = pa.table({"source_key": keys, "subject_hint": none, "collection": none})
    pq.write_table(table, folder / "_photos" / fragment.name)
    rows = [
        {
            "source_key": key,
            "person_id": name,
            "verdict": "kept",
            "decisions": [FOUND],
            "appearance": None,
            "face": {"box": [0.0, 0.0, 60.0, 60.0], "score": 0.9, "embedding": vector.tobytes()},
        }
        for key, people in zip(keys, photos, strict=True)
        for name, vector in people
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / fragment.name)
    return [fragment]


def write_people(folder: Path, vectors: np.ndarray, faces: list[int]) -> list[Fragment]:
    """A fragment of `people/` with one face a photo."""
    return write_fragment(folder, [[(person_id(face), vectors[face])] for face in faces])


def new_index(folder: Path) -> IdentityIndex:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"format": 1, "embedder": "e", "embedder_name": "drawn@0"}
    (folder / "index.json").write_text(json.dumps(about))
    return IdentityIndex(str(folder))


def curate_faces(
    folder: Path, name: str, vectors: np.ndarray, faces: list[int], index: IdentityIndex | None
) -> dict[str, str]:
    """{person_id: identity} of a collection."""
    people = write_people(folder / name / "people", vectors, faces)
    found = assign_with(
        InlineEngine(), str(folder / name / "search"),
        Run(str(folder / name)).people, people, SETTINGS, 0, index,
    )  # fmt: skip
    assert not (folder / name / "search").exists()
    return dict(
        zip(*(found.assigned[column].to_pylist() for column in ("person_id", "identity")), strict=True)
    )


def pairwise_f(found: dict[str, str], person: np.ndarray) -> float:
    names = [person_id(face) for face in range(len(person))]
    both, in_found, in_true = pair_counts([found[name] for name in names], [str(who) for who in person])
    return 2 * both / (in_found + in_true)


def test_five_collections_one_after_the_other_come_near_to_all_at_once(tmp_path: Path) -> None:
    faces = Faces(1, people=150, most=8, noise=0.85)
    batch = curate_faces(tmp_path, "batch", faces.vectors, list(range(len(faces))), None)
    index = new_index(tmp_path / "index")
    parts = np.array_split(np.arange(len(faces)), 5)
    before: dict[str, str] = {}
    for number, part in enumerate(parts):
        now = curate_faces(tmp_path, f"part{number}", faces.vectors, part.tolist(), index)
        assert set(now) == {person_id(face) for face in part.tolist()}
        before |= now
    given = {name: index.aliases().get(identity, identity) for name, identity in before.items()}
    assert pairwise_f(batch, faces.person) > 0.95
    assert abs(pairwise_f(given, faces.person) - pairwise_f(batch, faces.person)) <= 0.01
    assert sum(index.sizes().values()) == len(faces)


def test_identities_of_two_faces_keep_their_name_and_grow_and_others_are_born(tmp_path: Path) -> None:
    faces = Faces(2, people=20, most=6, noise=0.4)
    index = new_index(tmp_path / "index")
    half = len(faces) // 2
    first = curate_faces(tmp_path, "a", faces.vectors, list(range(half)), index)
    sizes = index.sizes()
    second = curate_faces(tmp_path, "b", faces.vectors, list(range(half, len(faces))), index)
    now = index.sizes()
    frozen = {name for name, size in sizes.items() if size > 1}
    assert frozen <= set(now)
    assert all(now[name] >= sizes[name] for name in frozen)
    assert any(now[name] > sizes[name] for name in frozen)
    assert set(second.values()) - set(first.values())


def test_the_same_collection_again_changes_nothing(tmp_path: Path) -> None:
    faces = Faces(3, people=15, most=5, noise=0.5)
    index = new_index(tmp_path / "index")
    everyone = list(range(len(faces)))
    first = curate_faces(tmp_path, "a", faces.vectors, everyone, index)
    files = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    assert curate_faces(tmp_path, "b", faces.vectors, everyone[::-1], index) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == files


@pytest.fixture
def tied(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """An index where a second collection ties two identities of the first together: a merge is proposed."""
    angles = np.radians([0, 4, 76, 80, 30, 38, 46, 50])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("<f4")
    index = new_index(tmp_path / "index")
    first = curate_faces(tmp_path, "a", vectors, [0, 1, 2, 3], index)
    second = curate_faces(tmp_path, "b", vectors, [4, 5, 6, 7], index)
    return tmp_path, first, second


def test_two_frozen_identities_are_never_joined_but_proposed(
    tied: tuple[Path, dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first, second = tied
    assert len(set(first.values())) == 2
    assert set(second.values()) <= set(first.values())
    assert main(["identities", "list", str(folder / "index"), "--json"]) == 0
    (merge,) = json.loads(capsys.readouterr().out)["merges"]
    assert merge["state"] == "proposed"
    assert {merge["into"], merge["other"]} == set(first.values())


def test_an_accepted_merge_makes_them_one_and_a_reverted_one_two_again(
    tied: tuple[Path, dict[str, str], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = tied
    index = IdentityIndex(str(folder / "index"))
    (merge,) = index.merges.entries
    before = index.sizes()
    assert main(["identities", "accept", str(folder / "index"), merge]) == 0
    assert list(index.sizes().values()) == [8]
    assert main(["identities", "revert", str(folder / "index"), merge]) == 0
    assert index.sizes() == before
    assert [state for _, state in index.merges.entries[merge].log] == ["proposed", "accepted", "reverted"]
    assert main(["identities", "accept", str(folder / "index"), "ffffffff"]) == 2
    assert "has no merge ffffffff" in capsys.readouterr().err


def test_propose_finds_alike_identities_and_repeats_none(tmp_path: Path) -> None:
    angles = np.radians([0, 1, 20, 21, 120, 121])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("<f4")
    index = new_index(tmp_path / "index")
    for number in range(3):
        # Each pair comes alone, and a face of its own is far from what is there.
        people = write_people(tmp_path / f"{number}/people", vectors, [2 * number, 2 * number + 1])
        strict = SETTINGS.model_copy(update={"link_cosine": 0.99, "merge_cosine": 0.99})
        scratch, source = str(tmp_path / "search"), Run(str(tmp_path / f"{number}")).people
        assign_with(InlineEngine(), scratch, source, people, strict, 0, index)
    assert len(index.sizes()) == 3
    where = str(tmp_path / "index")
    assert main(["identities", "propose", where, "--merge-cosine", "0.9"]) == 0
    assert [entry.state for entry in index.merges.entries.values()] == ["proposed"]
    assert main(["identities", "propose", where, "--merge-cosine", "0.9"]) == 0
    assert len(index.merges.entries) == 1


def test_faces_of_whom_no_headwear_is_known_join_an_index(tmp_path: Path) -> None:
    index = new_index(tmp_path / "index")
    rows = FaceRows([person_id(0)], [0], [None], [None], [True])
    vectors = write_vectors(str(tmp_path / "faces"), iter([np.eye(1, 2, dtype=np.float32)]), 1, 2)
    index.add(rows, vectors, np.array([0]), ["a"], np.zeros(0))
    assert index.sizes() == {"a": 1}
    with pytest.raises(ValueError, match="as many"):
        FaceRows([person_id(0)], [0], [None], [None], [True], [1, 1])


@pytest.fixture
def expired(tmp_path: Path) -> Path:
    """An index that a run with index_days of 30 has opened, and whose one file came in 31 days ago."""
    folder = tmp_path / "index"
    index = new_index(folder)
    faces = Faces(7, people=3, most=2, noise=0.3)
    curate_faces(tmp_path, "a", faces.vectors, list(range(len(faces))), index)
    index.keep_for(30)
    (path,) = folder.glob("faces-*.parquet")
    table = pq.read_table(path)
    day = (datetime.now(UTC).date() - timedelta(days=31)).isoformat()
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"persona.day": day.encode()}), path
    )
    return folder


def test_expired_embeddings_are_not_searched(expired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identities", "propose", str(expired), "--merge-cosine", "0.4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "30 days" in line
    assert "faces-" in line
    IdentityIndex(str(expired)).keep_for(31)
    assert main(["identities", "propose", str(expired), "--merge-cosine", "0.4"]) == 0


def test_list_says_which_faces_are_expired(expired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name,) = (path.name for path in expired.glob("faces-*.parquet"))
    assert main(["identities", "list", str(expired), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expired"] == [name]
    assert main(["identities", "list", str(expired)]) == 0
    assert "expired" in capsys.readouterr().out


def test_an_index_that_names_no_age_keeps_the_default_and_a_wrong_one_is_one_line(
    expired: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((expired / "index.json").read_text())
    del about["index_days"]
    (expired / "index.json").write_text(json.dumps(about))
    assert IdentityIndex(str(expired)).expired() == []
    for wrong in ("x", 0, True):
        (expired / "index.json").write_text(json.dumps({**about, "index_days": wrong}))
        assert main(["identities", "list", str(expired)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_embeddings_are_deleted_by_their_age(tmp_path: Path) -> None:
    faces = Faces(4, people=5, most=3, noise=0.3)
    index = new_index(tmp_path / "index")
    curate_faces(tmp_path, "a", faces.vectors, list(range(len(faces))), index)
    today = datetime.now(UTC).date()
    assert index.expire(90, today + timedelta(days=90)) == []
    assert len(index.expire(90, today + timedelta(days=91))) == 1
    assert index.sizes() == {}


def index_bytes(folder: Path) -> bytes:
    """Everything that an index holds, Parquet columns as they decode."""
    found = b""
    for path in sorted(folder.iterdir()):
        found += path.read_bytes()
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
            found += b"".join(row["person_id"].encode() + row["identity"].encode() for row in rows)
            found += b"".join(row["embedding"] for row in rows)
    return found


def test_a_forgotten_identity_leaves_no_byte_and_the_others_keep_theirs(tmp_path: Path) -> None:
    faces = Faces(5, people=12, most=5, noise=0.3)
    folder = tmp_path / "index"
    index = new_index(folder)
    half = len(faces) // 2
    given = curate_faces(tmp_path, "a", faces.vectors, list(range(half)), index)
    given |= curate_faces(tmp_path, "b", faces.vectors, list(range(half, len(faces))), index)
    whom = index.aliases().get(given[person_id(0)], given[person_id(0)])
    mine = [face for face in range(len(faces)) if given[person_id(face)] == whom]
    (folder / ".faces-dead.parquet.1.tmp").write_bytes(faces.vectors[mine[0]].tobytes())
    before = index.sizes()
    assert main(["identities", "forget", str(folder), "--identity", whom, "--json"]) == 0
    held = index_bytes(folder)
    for face in mine:
        assert person_id(face).encode() not in held
        assert faces.vectors[face].tobytes() not in held
    assert whom.encode() not in held
    assert index.sizes() == {name: size for name, size in before.items() if name != whom}
    names = index.additions()
    assert main(["identities", "forget", str(folder), "--identity", whom]) == 0
    assert index.additions() == names


def write_couples(folder: Path, vectors: np.ndarray) -> list[Fragment]:
    """A fragment of `people/` with two strangers on every photo: vectors [photos, 2, n]."""
    photos = []
    for number, two in enumerate(vectors.astype("<f4")):
        photo = f"{folder.parent.name}-{number}".zfill(64)
        photos.append([(f"{photo}-{i}", one) for i, one in enumerate(two)])
    return write_fragment(folder, photos)


def test_an_index_knows_the_strangers_of_all_its_collections_and_counts_them_once(tmp_path: Path) -> None:
    index = new_index(tmp_path / "index")
    random = np.random.default_rng(2)
    settings = SETTINGS.model_copy(update={"link_cosine": 0.2, "false_links": 1.0})
    vectors = random.normal(size=(3, 45, 2, 64))
    vectors /= np.linalg.norm(vectors, axis=3, keepdims=True)

    def said(number: int) -> str:
        folder = tmp_path / f"{number}"
        people = write_couples(folder / "people", vectors[number])
        return assign_with(
            InlineEngine(), str(folder / "search"),
            Run(str(folder)).people, people, settings, 0, index,
        ).says  # fmt: skip

    assert "(45 pairs of strangers)" in said(0)
    assert "(90 pairs of strangers)" in said(1)
    assert "(135 pairs of strangers)" in said(2)
    assert "(135 pairs of strangers)" in said(2)  # known by now


@pytest.mark.parametrize("link_cosine", [0.2, 0.9])
def test_a_cosine_that_costs_most_of_a_persons_pairs_is_said(tmp_path: Path, link_cosine: float) -> None:
    random = np.random.default_rng(4)
    people = random.normal(size=(20, 64))
    faces = people[random.integers(0, 20, (60, 2))] + 0.7 * random.normal(size=(60, 2, 64))
    faces /= np.linalg.norm(faces, axis=2, keepdims=True)
    settings = SETTINGS.model_copy(
        update={"link_cosine": link_cosine, "merge_cosine": link_cosine, "false_links": 1.0}
    )
    fragments = write_couples(tmp_path / "people", faces)
    says = assign_with(
        InlineEngine(), str(tmp_path / "search"),
        Run(str(tmp_path)).people, fragments, settings, 0, None,
    ).says  # fmt: skip
    assert ("expect people in several identities" in says) == (link_cosine == 0.9)


def test_a_forgotten_photo_takes_everyone_on_it_and_keeps_the_day_of_the_rest(tmp_path: Path) -> None:
    faces = Faces(6, people=8, most=4, noise=0.3)
    index = new_index(tmp_path / "index")
    curate_faces(tmp_path, "a", faces.vectors, list(range(len(faces))), index)
    (name,) = index.additions()
    day = index.day_of(name)
    found = forget(str(tmp_path / "index"), photo_ids=[person_id(3)[:64]])
    assert (found.faces, found.files) == (1, 1)
    (renamed,) = index.additions()
    assert renamed != name
    assert index.day_of(renamed) == day
    assert sum(index.sizes().values()) == len(faces) - 1


def test_identities_that_only_a_forgotten_one_held_together_come_apart_and_are_proposed(
    tmp_path: Path,
) -> None:
    angles = np.radians([0, 1, 60, 61, 120, 121])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("<f4")
    index = new_index(tmp_path / "index")
    given = curate_faces(tmp_path, "a", vectors, list(range(6)), index)
    left, middle, right = (given[person_id(face)] for face in (0, 2, 4))
    merges = index.merges
    merges.propose(left, middle, 0.5)
    merges.propose(middle, right, 0.5)
    merges.accept(list(merges.entries))
    merges.save()
    assert len(index.sizes()) == 1
    found = forget(str(tmp_path / "index"), person_ids=[person_id(2), person_id(3)])
    assert (found.identities, found.merges, found.proposed) == ([middle], 2, 1)
    assert set(index.sizes()) == {left, right}
    (entry,) = index.merges.entries.values()
    assert (entry.state, {entry.into, entry.other}) == ("proposed", {left, right})


def test_a_folder_that_is_no_index_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.json").write_text("[]")
    for folder in (tmp_path, tmp_path / "absent"):
        assert main(["identities", "list", str(folder)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.fixture
def curated(photos: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(pipelines.yaml, index) after a first run with an index."""
    pipeline = drawn_settings(photos)
    pipeline["identities"]["index"] = str(tmp_path / "index")
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    curate(config, tmp_path / "first")
    return config, tmp_path / "index"


def test_a_run_again_elsewhere_gets_its_identities_from_the_index(curated: tuple[Path, Path]) -> None:
    config, index = curated
    first = {row["person_id"]: row["identity"] for row in rows_of(config.parent / "first" / "identities")}
    # Another seed names new identities otherwise: these are known.
    curate(config, config.parent / "second", "--set", "seed=8")
    second = {row["person_id"]: row["identity"] for row in rows_of(config.parent / "second" / "identities")}
    assert second == first
    assert not (config.parent / "second" / "identities" / "_search").exists()
    assert len(IdentityIndex(str(index)).additions()) == 1
    assert IdentityIndex(str(index)).days == 90
    curate(config, config.parent / "third", "--set", "identities.index_days=7")
    assert IdentityIndex(str(index)).days == 7


def test_another_embedder_is_refused_before_anything_runs(curated: tuple[Path, Path]) -> None:
    config, _ = curated
    done = persona(
        "curate", "drawn", "--config", config, "--out", config.parent / "third", "--engine", "inline",
        "--set", "people.face.embed.options={revision: 2}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "was made with the embedder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (config.parent / "third").exists()
