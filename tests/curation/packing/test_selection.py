"""Pair selection: near copies go, too many photos are thinned to those that differ most, all with reasons."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.captions.select import Select
from curation.settings.groups import SelectionSettings
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, rows_of, write_config
from tests.drawn_pipeline import settings as drawn_settings

STANDING = np.column_stack([np.tile([40.0, 60.0], 9)[:17], np.linspace(0, 200, 17), np.full(17, 0.9)])
APPEARANCE = np.full((4, 80), 1 / 80, np.float32)


def arms_up(by: float) -> np.ndarray:
    joints = STANDING.copy()
    joints[5:11, 1] -= by
    return joints


def person(name: str, hash_: int, joints: np.ndarray | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "group": "0123456789abcdef-a",
        "identity": "0123456789abcdef",
        "person_id": name,
        "box": [0.0, 0.0, 100.0, 200.0],
        "phash": hash_,
        "keypoints": None if joints is None else joints.ravel().tolist(),
        "appearance": APPEARANCE.astype("<f2").tobytes(),
        **changes,
    }


def far(number: int) -> int:
    """Hashes that differ in about half of their bits."""
    return int(np.random.default_rng(number).integers(0, 2**64, dtype=np.uint64))


def select(
    rows: list[dict[str, Any]], **settings: Any
) -> dict[str, tuple[str, dict[str, Any], float | None]]:
    """{person_id: (reason or "kept", decision, diversity)}."""
    hashes = pa.array([row["phash"] for row in rows], pa.uint64())
    plain = [{k: v for k, v in row.items() if k != "phash"} for row in rows]
    table = pa.Table.from_pylist(plain).append_column("phash", hashes)
    if pa.types.is_null(table.schema.field("keypoints").type):
        at = table.schema.get_field_index("keypoints")
        table = table.set_column(at, "keypoints", table["keypoints"].cast(pa.list_(pa.float64())))
    found = Select(SelectionSettings(**settings), min_photos=2)(table).to_pylist()
    return {
        row["person_id"]: (row["decisions"][-1]["reason"] or "kept", row["decisions"][-1], row["diversity"])
        for row in found
    }


def reasons(rows: list[dict[str, Any]], **settings: Any) -> dict[str, str]:
    return {name: found[0] for name, found in select(rows, **settings).items()}


def test_of_two_shots_of_one_moment_the_larger_stays_and_the_other_names_it() -> None:
    rows = [
        person("a", far(1), STANDING),
        person("b", far(1) ^ 0b10101, STANDING, box=[0.0, 0.0, 150.0, 300.0]),
        person("c", far(2), arms_up(60)),
    ]
    found = select(rows)
    assert {name: said[0] for name, said in found.items()} == {"a": "near_copy", "b": "kept", "c": "kept"}
    decision = found["a"][1]
    assert (decision["score"], decision["threshold"]) == (3, 12)
    assert decision["detail"].startswith("of b")
    assert found["a"][2] is None
    assert reasons(rows, near_copies=False) == {"a": "kept", "b": "kept", "c": "kept"}


def test_another_pose_before_the_same_wall_is_no_copy_and_without_joints_the_hash_decides() -> None:
    rows = [person("a", far(1), STANDING), person("b", far(1), arms_up(60)), person("c", far(2), STANDING)]
    rows[2]["appearance"] = (APPEARANCE * np.tile([0, 2], 40)).astype("<f2").tobytes()
    assert set(reasons(rows).values()) == {"kept"}
    for row in rows:
        row["keypoints"] = None
    assert reasons(rows) == {"a": "kept", "b": "near_copy", "c": "kept"}


def test_another_cut_of_one_shot_is_told_by_joints_and_colours() -> None:
    cut = STANDING * [1.4, 1.4, 1] - [30, 50, 0]
    rows = [person("a", far(1), STANDING), person("b", far(2), cut), person("c", far(3), arms_up(60))]
    assert reasons(rows) == {"a": "kept", "b": "same_shot", "c": "kept"}


def test_a_group_of_one_moment_alone_has_no_pair_and_is_given_up() -> None:
    rows = [person("a", far(1), STANDING), person("b", far(1), STANDING)]
    assert reasons(rows) == {"a": "too_few_photos", "b": "near_copy"}


def test_a_group_that_is_too_large_keeps_the_photos_that_differ_most() -> None:
    alike = [person(f"a{i}", far(1) ^ (0xFFFF << 8 * i), arms_up(8 * i)) for i in range(6)]
    other = [person("x", far(7), arms_up(90)), person("y", far(8), arms_up(-90))]
    rows = [*alike, *other]
    everyone, some = select(rows), select(rows, max_group_photos=3)
    stay = {name for name, found in some.items() if found[0] == "kept"}
    assert len(stay) == 3
    assert stay & {"x", "y"}
    assert {found[0] for name, found in some.items() if name not in stay} == {"group_cap"}
    assert np.mean([some[name][2] for name in stay]) > np.mean([found[2] for found in everyone.values()])
    assert all(0 <= (found[2] or 0) <= 1 for found in everyone.values())


def test_the_cap_of_a_person_leaves_whole_pairs_of_as_many_outfits_as_go() -> None:
    rows = [
        person(f"{letter}{i}", far(10 * place + i), group=f"0123456789abcdef-{letter}")
        for place, letter in enumerate("abc")
        for i in range(3 + place)
    ]
    rows += [
        person(f"z{i}", far(90 + i), group="fedcba9876543210-a", identity="fedcba9876543210") for i in (0, 1)
    ]
    found = reasons(rows, max_person_photos=5)
    kept = [name for name, reason in found.items() if reason == "kept"]
    assert sorted(name[0] for name in kept) == ["b", "b", "c", "c", "c", "z", "z"]
    assert set(found.values()) == {"kept", "person_cap"}


def test_the_order_of_the_rows_changes_nothing() -> None:
    random = np.random.default_rng(4)
    rows = [
        person(
            f"p{i:02d}", far(i // 2) ^ (i % 2), arms_up(float(i // 2)), group=f"{'0' * 16}-{'ab'[i % 3 == 0]}"
        )
        for i in range(24)
    ]
    first = select(rows, max_group_photos=5, max_person_photos=8)
    for _ in range(5):
        shuffled = [rows[i] for i in random.permutation(len(rows)).tolist()]
        assert select(shuffled, max_group_photos=5, max_person_photos=8) == first


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two people and re-encoded copies of two of their photos, which no phase before looks for."""
    folder = tmp_path_factory.mktemp("copies")
    drawn = collection(3, people=2, outfits=1)
    source = write_folder(folder / "photos", drawn)
    for photo in drawn[:2]:
        sink = io.BytesIO()
        Image.open(io.BytesIO(photo.jpeg)).save(sink, "JPEG", quality=60)
        (source / f"copy-of-{photo.name}").write_bytes(sink.getvalue())
    pipeline = drawn_settings(source)
    pipeline["photos"]["duplicates"] = {"near": False}
    curate(write_config(folder / "pipelines.yaml", pipeline), folder / "run")
    return folder


def test_a_run_leaves_near_copies_out_of_its_shards_and_why_tells(
    with_copies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_copies / "run"
    left_out = [row for row in rows_of(run / "captions") if row["verdict"] != "kept"]
    assert len(left_out) == 2
    assert all(row["photo_caption"] is None for row in left_out)
    with tarfile.open(run / "shards" / "000000.tar") as tar:
        records = {
            member.name: json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
            for member in tar
            if member.name.endswith(".json")
        }
    photos = [record for name, record in records.items() if name.count(".") == 2]
    groups = [record for name, record in records.items() if name.count(".") == 1]
    assert len(photos) == 6
    assert not {row["person_id"] for row in left_out} & {record["person_id"] for record in photos}
    assert all(0 < record["diversity"] <= 1 for record in [*photos, *groups])
    assert main(["why", str(run), left_out[0]["file_name"]]) == 0
    assert "select      rejected near_copy" in capsys.readouterr().out


def test_a_cap_below_the_least_group_is_refused(
    with_copies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["curate", "drawn", "--config", str(with_copies / "pipelines.yaml"), "--engine", "inline"]
    words += ["--out", str(with_copies / "other"), "--set", "outfits.min_photos=4"]
    assert main([*words, "--set", "selection.max_person_photos=3"]) == 2
    said = capsys.readouterr().err
    assert "must not be below outfits.min_photos (4)" in said
    assert len(said.splitlines()) == 1
