"""The rendered world: one seed, one world, and a truth that fits the pixels."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.people.atr import decode_map
from demo.world import (
    Identity,
    bareheaded,
    in_a_hat,
    look_alike,
    make_identity,
    make_outfits,
    make_world,
    render,
    snapshot,
)
from demo.world.collection import write_collection
from demo.world.outfits import differ
from demo.world.scene import SCENES
from demo.world.skeleton import ARMS, POSES
from demo.world.traits import FACE_RANGES


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world in all three forms."""
    out = tmp_path_factory.mktemp("world")
    write_collection(make_world(31, 48), out, processes=1)
    return out


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_world_is_a_function_of_its_seed_and_size(written: Path, tmp_path: Path) -> None:
    write_collection(make_world(31, 48), tmp_path, processes=2)
    assert _bytes_of(tmp_path) == _bytes_of(written)
    assert make_world(32, 48).identities[0].face != make_world(31, 48).identities[0].face


def test_every_form_holds_every_photo(written: Path) -> None:
    files = {f.read_bytes() for f in (written / "collection/folder").iterdir()}
    table = pq.read_table(written / "collection/parquet/photos.parquet")
    assert {*table["image"].to_pylist()} == files
    tars = b"".join(f.read_bytes() for f in sorted((written / "collection/tars").iterdir()))
    assert all(data in tars for data in files)
    assert pq.read_metadata(written / "truth/photos.parquet").num_rows == 48


def test_the_truth_of_a_written_photo_fits_its_pixels(written: Path) -> None:
    photos = {row["photo_id"]: row for row in pq.read_table(written / "truth/photos.parquet").to_pylist()}
    people = pq.read_table(written / "truth/people.parquet").to_pylist()
    assert len(people) > 40
    for person in people:
        photo = photos[person["photo_id"]]
        x0, y0, x1, y1 = person["box"]
        assert 0 <= x0 < x1 <= photo["width"] + 1e-3
        assert 0 <= y0 < y1 <= photo["height"] + 1e-3
        labels = decode_map(person["labels"])
        assert labels.shape == (np.ceil(y1) - np.floor(y0), np.ceil(x1) - np.floor(x0))
        assert 0 < person["visible_share"] <= 1
        joints = np.array(person["keypoints"]).reshape(17, 3)
        seen = joints[joints[:, 2] > 0]
        assert (seen[:, 0] < photo["width"]).all()
        assert (seen[:, 1] < photo["height"]).all()


def test_corrupt_files_do_not_decode_and_copies_look_like_their_originals(written: Path) -> None:
    rows = pq.read_table(written / "truth/photos.parquet").to_pylist()
    by_id = {row["photo_id"]: row for row in rows}
    folder = written / "collection/folder"
    corrupt = [row for row in rows if row["kind"] == "corrupt"]
    copies = [row for row in rows if row["copy_of"]]
    assert corrupt
    assert copies
    for row in copies:
        one = cv2.imread(str(folder / row["path"]), cv2.IMREAD_GRAYSCALE)
        two = cv2.imread(str(folder / by_id[row["copy_of"]]["path"]), cv2.IMREAD_GRAYSCALE)
        small = [
            cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA).astype(float).ravel() for i in (one, two)
        ]
        assert np.corrcoef(small)[0, 1] > 0.99
    for row in corrupt:
        data = (folder / row["path"]).read_bytes()
        assert not data.endswith(b"\xff\xd9")


def test_no_two_outfits_of_a_person_look_alike() -> None:
    for number in range(30):
        outfits = make_outfits(make_identity(5, number), 4)
        worn = [dict(outfit.garments) for outfit in outfits]
        assert all(differ(worn[a], worn[b]) for a in range(4) for b in range(a))


def test_later_outfits_share_garments_with_earlier_ones() -> None:
    shared = jackets = 0
    for number in range(60):
        first, second = (dict(o.garments) for o in make_outfits(make_identity(6, number), 2))
        shared += any(first.get(slot) == second.get(slot) for slot in ("upper", "lower", "dress"))
        jackets += ("outer" in first) != ("outer" in second) and first.get("lower") == second.get("lower")
    assert shared >= 15
    assert jackets >= 3


def test_a_hat_is_all_that_changes_when_one_is_put_on_or_taken_off() -> None:
    for number in range(8):
        outfit = make_outfits(make_identity(6, number), 1)[0]
        worn = in_a_hat(outfit, np.random.default_rng(number))
        assert worn.get("hat") is not None
        assert bareheaded(worn).get("hat") is None
        assert bareheaded(worn).garments == bareheaded(outfit).garments
        assert worn.key == outfit.key
        assert worn == in_a_hat(outfit, np.random.default_rng(number))


def test_a_look_alike_is_nearer_to_a_person_than_strangers_are_but_not_the_same() -> None:
    who = make_identity(8, 0)
    twin, stranger = look_alike(who, 8, 1), make_identity(8, 1)

    def distance(other: Identity) -> float:
        spans = {name: high - low for name, (low, high) in FACE_RANGES.items()}
        return sum(abs(getattr(who.face, n) - getattr(other.face, n)) / span for n, span in spans.items())

    assert twin.hair == who.hair
    assert twin.face != who.face
    assert 0 < distance(twin) < 0.6 * distance(stranger)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("view", ["front", "side", "back"])
def test_every_pose_shows_the_joints_on_the_body(pose: str, view: str) -> None:
    who = make_identity(9, 3)
    person = render(snapshot(who, make_outfits(who, 1)[0], 4, framing="full", pose=pose, view=view)).people[0]
    seen = person.keypoints[:, 2] == 2
    assert seen[5:].sum() >= 10
    assert person.face_visible == (view == "front")
    assert person.facts["pose"] == pose


def test_worlds_contain_every_kind_of_photo_scene_pose_and_arms() -> None:
    world = make_world(33, 300)
    assert {plan.kind for plan in world.photos} == {"photo", "crowd", "poster", "statue", "empty", "corrupt"}
    assert {plan.scene for plan in world.photos} == set(SCENES)
    figures = [cast for plan in world.photos for cast in plan.cast]
    assert {cast.pose.name for cast in figures} == set(POSES)
    assert {cast.pose.arms for cast in figures} == set(ARMS)
    assert any(len(plan.cast) == 2 for plan in world.photos)


def test_in_a_world_of_seen_wardrobes_everyone_is_seen_in_all_their_outfits_three_times_or_more() -> None:
    world = make_world(35, 800, "seen")
    seen = Counter(
        plan.cast[0].outfit.key for plan in world.photos if plan.kind == "photo" and plan.copy_of is None
    )
    *whole, _ = world.identities  # the last one's photos may be cut off where the world ends
    assert all(3 <= seen[outfit.key] <= 6 for who in whole for outfit in world.outfits[who.key])
    assert {len(world.outfits[who.key]) for who in whole} == {1, 2, 3, 4, 5, 6}


def test_posters_and_statues_are_nobody() -> None:
    world = make_world(34, 80)
    for plan in world.photos:
        if plan.kind in ("poster", "statue", "empty"):
            assert render(plan).people == []
