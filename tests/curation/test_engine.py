"""What a run promises: nothing is lost, nothing is done twice, the same config gives the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation.errors import PersonaError
from curation.fragments import list_fragments
from curation.ray_address import require_cluster
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import (
    ROOT,
    asked,
    command,
    counts_of,
    curate,
    environment,
    files_of,
    persona,
    rows_of,
    settings,
    write_config,
)
from tests.forked import Command, preload

preload("tests.preloaded")

KILLS_INLINE = 16
KILLS_RAY = 4


def slow(source: Path, milliseconds: int) -> dict[str, Any]:
    """The drawn pipeline with a detector that takes its time, in fragments of 8 photos."""
    pipeline = settings(source, fragment_rows=8)
    pipeline["people"]["detect"]["by"]["options"] = {"seconds": milliseconds / 1000}
    pipeline["people"]["slice_rows"] = 4
    return pipeline


@pytest.fixture(scope="module")
def config(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "pipelines.yaml", slow(photos, 5))


def started(config: Path, out: Path, calls: Path, *options: str) -> Command:
    """The run in a process of its own."""
    words: list[str | Path] = ["curate", "drawn", "--config", config, "--out", out, "--quiet"]
    words += ["--allow-empty", *options]
    return Command(words, out.parent / "said.txt", {"PERSONA_CALLS": None, **environment(calls)})


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The shards of a run that nobody killed, and the seconds of a processor that it took."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run = started(config, out, out.parent / "calls", "--engine", "inline")
    assert run.exit_code() == 0, run.said()
    assert len(rows_of(out / "packing" / "groups.parquet", ["identity"])) > 1
    return files_of(out / "shards"), run.cpu_s


def committed_photos(run: Path) -> set[str]:
    """Ids of the photos in committed fragments of `people/`."""
    found = set()
    for fragment in list_fragments(str(run / "people")):
        found |= {
            row["photo_id"] for row in rows_of(run / "people" / "_photos" / fragment.name, ["photo_id"])
        }
    return found


def assert_resumes_exactly(config: Path, out: Path, expected: dict[str, bytes], *options: str) -> None:
    """Of a run that was killed."""
    done_before = committed_photos(out)
    parts_before = {f.name for f in list_fragments(str(out / "packing"))}
    times_before = {name: (out / "packing" / name).stat().st_mtime_ns for name in parts_before}
    curate(config, out, *options, calls=out.parent / "calls-2")
    assert files_of(out / "shards") == expected
    again = {name for stage, name in asked(out.parent / "calls-2") if stage == "detect"}
    assert not again & done_before
    for name, before in times_before.items():
        assert (out / "packing" / name).stat().st_mtime_ns == before


@pytest.mark.parametrize("nth", range(KILLS_INLINE))
def test_run_killed_at_a_random_moment_resumes_to_the_same_bytes_and_repeats_no_committed_fragment(
    nth: int, config: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, cpu_s = undisturbed
    run = started(config, tmp_path / "run", tmp_path / "calls-1", "--engine", "inline")
    if run.reaches(random.Random(nth).uniform(0, 1) * cpu_s):
        run.kill()
    assert_resumes_exactly(config, tmp_path / "run", expected, "--engine", "inline")


@pytest.mark.parametrize("nth", range(KILLS_RAY))
def test_run_on_ray_killed_at_a_random_moment_resumes_to_the_same_bytes_and_repeats_no_committed_fragment(
    nth: int,
    photos: Path,
    undisturbed: tuple[dict[str, bytes], float],
    ray_address: str,
    tmp_path: Path,
) -> None:
    expected, _ = undisturbed
    pipeline = slow(photos, 5)
    pipeline["people"]["resources"] = {"workers": 2}
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    options = ("--engine", "ray", "--ray-address", ray_address)
    run = started(config, tmp_path / "run", tmp_path / "calls-1", *options)
    deadline = time.monotonic() + random.Random(nth).uniform(1.5, 6.0)
    while run.running() and time.monotonic() < deadline:
        time.sleep(0.02)
    if run.running():
        run.kill()
    assert_resumes_exactly(config, tmp_path / "run", expected, *options)


def test_killed_worker_loses_nothing_and_changes_nothing(
    photos: Path, undisturbed: tuple[dict[str, bytes], float], ray_address: str, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    config = write_config(tmp_path / "pipelines.yaml", slow(photos, 60))
    out, calls = tmp_path / "run", tmp_path / "calls"
    words = ("curate", "drawn", "--config", config, "--out", out, "--quiet")
    run = subprocess.Popen(
        command(*words, "--ray-address", ray_address),
        cwd=ROOT,
        env=environment(calls),
        stderr=subprocess.PIPE,
        text=True,
    )
    # A worker that has asked its model names its file by its process.
    deadline = time.monotonic() + 60
    while not any("detect" in file.read_text() for file in calls.glob("*.jsonl")):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    for file in calls.glob("*.jsonl"):
        pid = int(file.stem.rsplit("-", 1)[1])
        if pid != run.pid:
            os.kill(pid, signal.SIGKILL)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    # The slower detector is another config, which dataset.json and the card name.
    data = {name for name in expected if name.endswith((".tar", ".parquet"))}
    assert {name: files_of(out / "shards")[name] for name in data} == {n: expected[n] for n in data}


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_shards_byte_for_byte(
    workers: int,
    photos: Path,
    undisturbed: tuple[dict[str, bytes], float],
    ray_address: str,
    tmp_path: Path,
) -> None:
    pipeline = slow(photos, 0)
    pipeline["people"]["detect"]["by"]["options"] = {"seconds": 0.005}
    for phase in ("photos", "people", "identities", "outfits", "captions", "shards"):
        pipeline.setdefault(phase, {})["resources"] = {"workers": workers}
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    curate(config, tmp_path / "run", "--engine", "ray", "--ray-address", ray_address)
    assert files_of(tmp_path / "run" / "shards") == undisturbed[0]


def test_a_local_ray_cluster_is_started_where_none_is_given(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    assert curate(config, tmp_path / "run", "--engine", "ray")["collection"] == 60


def test_an_address_in_the_environment_without_a_cluster_is_one_line_soon(
    photos: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    began = time.monotonic()
    done = subprocess.run(
        command("curate", "drawn", "--config", config, "--out", tmp_path / "run"),
        cwd=ROOT,
        env={**environment(), "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert time.monotonic() - began < 15
    assert done.returncode == 1
    assert done.stderr == "persona: Ray: nobody answers at 127.0.0.1:1: Connection refused\n"


def test_a_clusters_token_that_is_refused_and_its_port_with_the_wrong_scheme_are_one_line(
    ray_address: str,
) -> None:
    require_cluster(ray_address)
    with pytest.raises(PersonaError, match="is a cluster's own port: give it without ray://"):
        require_cluster(f"ray://{ray_address}")
    # Ray reads its token once a process.
    program = f"from curation.ray_address import require_cluster; require_cluster({ray_address!r})"
    stranger = {**environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=stranger, capture_output=True, text=True, timeout=60
    )
    assert f"the cluster at {ray_address} refuses the token: set RAY_AUTH_MODE=token" in done.stderr
    assert "gcs_client" not in done.stderr


def test_a_finished_run_started_again_asks_no_model_and_touches_no_shard(
    photos: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    first = curate(config, tmp_path / "run", alone=True)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "shards").iterdir()}
    second = curate(config, tmp_path / "run", calls=tmp_path / "calls")
    assert list(asked(tmp_path / "calls")) == []
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "shards").iterdir()} == times
    assert counts_of(second) == counts_of(first)


@pytest.mark.parametrize(
    "moved",
    [
        "photos.screen.min_side_px=120",
        "photos.duplicates.max_bits=2",
        "people.detect.min_score=0.95",
        "people.face.min_face_px=200",
        "people.full_body=paper",
        "people.segment.min_mask_share=0.99",
        "people.regions.min_regions=5",
        "identities.link_cosine=0.9",
        "outfits.judge.cut=0.99",
        "outfits.min_photos=3",
    ],
)
def test_a_moved_threshold_asks_no_model_there_and_back(
    moved: str, photos: Path, measured_run: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    before = files_of(measured_run / "shards")
    curate(config, measured_run, "--set", moved, calls=tmp_path / "calls")
    summary = curate(config, measured_run, calls=tmp_path / "calls")
    assert list(asked(tmp_path / "calls")) == []
    assert summary["model_calls_this_time"] == {}
    assert files_of(measured_run / "shards") == before


@pytest.fixture(scope="module")
def measured_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose thresholds tests move and move back."""
    folder = tmp_path_factory.mktemp("measured")
    curate(write_config(folder / "pipelines.yaml", settings(photos)), folder / "run")
    return folder / "run"


def test_a_moved_threshold_gives_what_a_fresh_run_with_it_gives(
    photos: Path, measured_run: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    moved = ("--set", "outfits.judge.cut=0.99", "--set", "identities.link_cosine=0.9")
    curate(config, measured_run, *moved)
    curate(config, tmp_path / "fresh", *moved)
    assert files_of(measured_run / "shards") == files_of(tmp_path / "fresh" / "shards")


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("people.face.embed", {"face", "regions", "appearance"}),
        ("people.segment.by", {"segment", "regions", "appearance"}),
        ("people.regions.by", {"regions", "appearance"}),
        ("people.detect.by", {"detect", "face", "segment", "regions", "appearance"}),
    ],
)
def test_a_changed_model_reruns_what_depends_on_it_only(
    path: str, stages: set[str], photos: Path, measured_run: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    curate(config, measured_run, "--set", f"{path}.options={{revision: 2}}", calls=tmp_path / "calls")
    times = Counter(asked(tmp_path / "calls"))
    assert {stage for stage, _ in times} == stages
    assert set(times.values()) == {1}


def test_people_ruled_out_early_are_not_measured_where_the_pipeline_measures_the_kept_only(
    photos: Path, tmp_path: Path
) -> None:
    pipeline = settings(photos)
    pipeline["people"]["measure"] = "kept"
    pipeline["people"]["full_body"] = "paper"
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    summary = curate(config, tmp_path / "run")
    assert counts_of(summary)["full_body"] == (60, 0, 60, 0)
    assert set(summary["model_calls_this_time"]) == {"read", "detect", "face"}
    loosened = curate(config, tmp_path / "run", "--set", "people.full_body=any")
    assert loosened["model_calls_this_time"] == {"segment": 60, "regions": 60, "appearance": 60}


def test_every_row_of_a_phase_is_kept_rejected_or_failed(photos: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "pipelines.yaml", settings(photos))
    summary = curate(config, tmp_path / "run", "--set", "outfits.judge.cut=0.95")
    for stage, (total, kept, rejected, failed) in counts_of(summary).items():
        assert total == kept + rejected + failed, stage
    assert len(rows_of(tmp_path / "run" / "photos", ["photo_id"])) == 60
    assert len(rows_of(tmp_path / "run" / "people" / "_photos", ["photo_id"])) == 60
    assert len(rows_of(tmp_path / "run" / "identities", ["person_id"])) == 60


def test_photos_that_come_later_are_measured_and_the_others_are_not_again(
    tmp_path: Path,
) -> None:
    drawn = collection(5, people=8)
    folder = write_folder(tmp_path / "photos", drawn[:32])
    config = write_config(tmp_path / "pipelines.yaml", settings(folder))
    curate(config, tmp_path / "run")
    write_folder(folder, drawn)
    curate(config, tmp_path / "run", calls=tmp_path / "calls")
    assert Counter(stage for stage, _ in asked(tmp_path / "calls"))["detect"] == len(drawn) - 32
    curate(config, tmp_path / "fresh")
    assert files_of(tmp_path / "run" / "shards") == files_of(tmp_path / "fresh" / "shards")


def test_too_many_failed_rows_stop_the_run_and_say_which(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", collection(5, people=2))
    for number in range(6):
        (folder / f"broken-{number}.jpg").write_bytes(b"")
    config = write_config(tmp_path / "pipelines.yaml", settings(folder, min_failed_rows=5))
    done = persona("curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "6 of" in last
    assert "unreadable" in last
    listed = persona("why", tmp_path / "run", "--failed")
    assert sum("broken-" in line for line in listed.stdout.splitlines()) == 6
    assert (
        persona("curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline",
                "--set", "engine.max_failed_share=0.5").returncode == 0
    )  # fmt: skip


def test_retry_takes_up_the_failed_rows_and_no_others(tmp_path: Path) -> None:
    drawn = collection(6, people=6)
    folder = write_folder(tmp_path / "photos", drawn)
    config = write_config(tmp_path / "pipelines.yaml", settings(folder))
    curate(config, tmp_path / "whole")
    # Two photos cannot be read at first, as when a store is out; their listing does not change.
    away = [folder / drawn[5].name, folder / drawn[20].name]
    stamps = [path.stat() for path in away]
    for path, stamp in zip(away, stamps, strict=True):
        path.write_bytes(b"\xff\xd8\xff" + bytes(stamp.st_size - 3))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    summary = curate(config, tmp_path / "run")
    assert counts_of(summary)["read"] == (36, 34, 0, 2)
    assert files_of(tmp_path / "run" / "shards") != files_of(tmp_path / "whole" / "shards")
    for number, path, stamp in zip((5, 20), away, stamps, strict=True):
        path.write_bytes(drawn[number].jpeg)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert curate(config, tmp_path / "run")["model_calls_this_time"] == {}
    done = persona(
        "retry", tmp_path / "run", "--engine", "inline", "--quiet", "--json", calls=tmp_path / "calls"
    )
    assert done.returncode == 0, done.stderr
    assert Counter(stage for stage, _ in asked(tmp_path / "calls")) == {
        "read": 2,
        "detect": 2,
        "face": 2,
        "segment": 2,
        "regions": 2,
        "appearance": 2,
    }
    assert files_of(tmp_path / "run" / "shards") == files_of(tmp_path / "whole" / "shards")
