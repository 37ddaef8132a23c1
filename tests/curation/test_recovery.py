"""After failures, changes and kills in awkward places: a run ends where a fresh one would."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona import main
from tests.drawn_models import DrawnEmbedder
from tests.drawn_people import Drawn, collection, draw, jpeg_of, write_folder, write_tars
from tests.drawn_pipeline import asked, counts_of, curate, files_of, persona, rows_of, settings, write_config


class BreakingCaptioner:
    """A captioner that has no sentence for anybody."""

    columns = ("person_id",)
    asks_model = False

    def __init__(self, settings: Any, models: Any) -> None:
        pass

    def caption(self, people: Any) -> list[str]:
        raise RuntimeError("no sentence")


class FlakyEmbedder(DrawnEmbedder):
    """An embedder that breaks on bright heads for as long as a file is there."""

    def __init__(self, settings: Any, models: Any) -> None:
        super().__init__(settings, models)
        self._flag = Path(settings.options["broken_while"])

    def embed(self, faces: np.ndarray) -> np.ndarray:
        if self._flag.exists() and faces.mean() > 132:
            raise RuntimeError("out of order")
        return super().embed(faces)


@pytest.fixture
def people(tmp_path: Path) -> tuple[Path, list[Drawn], Path]:
    """(folder, photos, config) of 36 photos in fragments of 4."""
    drawn = collection(6, people=6)
    folder = write_folder(tmp_path / "photos", drawn)
    return folder, drawn, write_config(tmp_path / "p.yaml", settings(folder, fragment_rows=4))


def retry(run: Path) -> dict[str, Any]:
    done = persona("retry", run, "--engine", "inline", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def break_file(path: Path) -> os.stat_result:
    """Makes a photo unreadable so that its listing does not change."""
    stamp = path.stat()
    path.write_bytes(b"\xff\xd8\xff" + bytes(stamp.st_size - 3))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return stamp


def mend_file(path: Path, data: bytes, stamp: os.stat_result) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_photo_that_retry_makes_readable_takes_over_from_its_copies_in_every_phase(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    folder, _, config = people
    original = folder / "photo-00000.jpg"
    data = original.read_bytes()
    copy = folder / "zzz.jpg"  # in another fragment, and smaller: a copy as soon as the first is read
    copy.write_bytes(jpeg_of(draw(6, 0, 0, 0), quality=60))
    curate(config, tmp_path / "fresh")
    stamp = break_file(original)
    before = curate(config, tmp_path / "run")
    assert counts_of(before)["copies"][1] == 36
    mend_file(original, data, stamp)
    after = retry(tmp_path / "run")
    stages = counts_of(after)
    assert stages["copies"][1] == stages["detect"][0] == 36
    assert files_of(tmp_path / "run" / "shards") == files_of(tmp_path / "fresh" / "shards")


def test_retry_lists_a_tar_anew_that_could_not_be_read_though_it_is_the_same(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars", collection(6, people=2), per_tar=6)
    data = (tars / "00001.tar").read_bytes()
    stamp = break_file(tars / "00001.tar")
    config = write_config(tmp_path / "p.yaml", settings(tars, kind="webdataset"))
    run, engine = tmp_path / "run", ["--engine", "inline", "--quiet"]
    assert main(["curate", "drawn", "--config", str(config), "--out", str(run), *engine]) == 0
    assert counts_of(json.loads((run / "summary.json").read_text()))["read"] == (7, 6, 0, 1)
    mend_file(tars / "00001.tar", data, stamp)
    assert main(["retry", str(run), *engine]) == 0
    assert counts_of(json.loads((run / "summary.json").read_text()))["read"] == (12, 12, 0, 0)


def test_what_would_build_on_a_failed_measurement_is_measured_after_retry(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    """With `measure: all`, regions that the parser bands by the face must wait for the face."""
    folder, _, _ = people
    pipeline = settings(folder, fragment_rows=4)
    flag = tmp_path / "broken"
    pipeline["people"]["regions"] = {"by": {"backend": "geometric"}}
    pipeline["people"]["face"]["embed"] = {
        "backend": "tests.curation.test_recovery:FlakyEmbedder",
        "options": {"broken_while": str(flag)},
    }
    config = write_config(tmp_path / "flaky.yaml", pipeline)
    curate(config, tmp_path / "fresh")
    flag.touch()
    summary = curate(config, tmp_path / "run")
    failures = counts_of(summary)["face"][3]
    assert 0 < failures < 36
    assert summary["model_calls_this_time"]["regions"] == 36 - failures
    listed = persona("why", tmp_path / "run", "--failed").stdout
    assert listed.count("out of order") == failures
    flag.unlink()
    again = retry(tmp_path / "run")["model_calls_this_time"]
    assert again == {"face": failures, "regions": failures, "appearance": failures}
    assert files_of(tmp_path / "run" / "shards") == files_of(tmp_path / "fresh" / "shards")


def test_a_changed_licence_beside_a_photo_reaches_a_finished_run(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    folder, drawn, config = people
    for photo in drawn:
        (folder / photo.name).with_suffix(".json").write_text('{"licence": "CC0"}')
    allowed = ("--set", "photos.screen.licences=[CC0]")
    assert counts_of(curate(config, tmp_path / "run", *allowed))["screen"] == (36, 36, 0, 0)
    (folder / drawn[7].name).with_suffix(".json").write_text('{"licence": "all rights reserved"}')
    summary = curate(config, tmp_path / "run", *allowed)
    assert counts_of(summary)["screen"] == (36, 35, 1, 0)
    assert summary["model_calls_this_time"] == {}


def test_a_changed_opt_out_list_reaches_a_finished_run(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    _, _, config = people
    listed = tmp_path / "opt-out.txt"
    listed.write_text("# nobody yet\n")
    words = ("--set", f"photos.screen.opt_out={listed}")
    curate(config, tmp_path / "run", *words)
    gone = rows_of(tmp_path / "run" / "photos")[3]
    listed.write_text(f"sha256:{gone['photo_id']}\n")
    curate(config, tmp_path / "run", *words)
    row = next(r for r in rows_of(tmp_path / "run" / "photos") if r["photo_id"] == gone["photo_id"])
    assert (row["verdict"], row["decisions"][-1]["reason"]) == ("rejected", "opted_out")
    for data in files_of(tmp_path / "run" / "shards").values():
        assert gone["photo_id"].encode() not in data


def test_copies_in_one_fragment_cost_no_model_when_a_threshold_is_moved(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    folder, drawn, config = people
    (folder / "photo-00000-again.jpg").write_bytes(drawn[0].jpeg)
    curate(config, tmp_path / "run")
    curate(config, tmp_path / "run", "--set", "people.detect.min_score=0.5", calls=tmp_path / "calls")
    assert list(asked(tmp_path / "calls")) == []


def test_another_column_of_photos_is_read_anew(tmp_path: Path) -> None:
    one, two = collection(7, people=2), collection(8, people=2)
    (tmp_path / "data").mkdir()
    columns = {"image": [photo.jpeg for photo in one], "other": [photo.jpeg for photo in two]}
    pq.write_table(pa.table(columns), tmp_path / "data" / "a.parquet")
    config = write_config(tmp_path / "p.yaml", settings(tmp_path / "data", kind="parquet"))
    curate(config, tmp_path / "run")
    first = {row["photo_id"] for row in rows_of(tmp_path / "run" / "photos")}
    curate(config, tmp_path / "run", "--set", "source.image_column=other")
    assert not first & {row["photo_id"] for row in rows_of(tmp_path / "run" / "photos")}


def test_a_run_killed_while_its_dataset_was_being_replaced_is_not_taken_for_the_old_one(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    _, _, config = people
    run = tmp_path / "run"
    curate(config, run)
    expected = files_of(run / "shards")
    marker = run / "packing" / "whole"
    old = marker.read_bytes()
    curate(config, run, "--set", "seed=8")
    assert files_of(run / "shards") != expected
    # As if the kill had come after dataset.json and before the marker: no marker is there.
    assert marker.read_bytes() != old
    marker.unlink()
    curate(config, run)
    assert files_of(run / "shards") == expected


def test_what_a_killed_write_left_in_the_run_folder_goes_with_the_next_start(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    _, _, config = people
    run = tmp_path / "run"
    run.mkdir()
    (run / ".status.json.0badcafe.tmp").write_text('{"state": "run')
    curate(config, run)
    assert [path.name for path in run.iterdir() if path.name.endswith(".tmp")] == []


def test_a_lost_tar_is_written_again(people: tuple[Path, list[Drawn], Path], tmp_path: Path) -> None:
    _, _, config = people
    curate(config, tmp_path / "run")
    expected = files_of(tmp_path / "run" / "shards")
    (tmp_path / "run" / "shards" / "000000.tar").unlink()
    summary = curate(config, tmp_path / "run")
    assert summary["model_calls_this_time"] == {}
    assert files_of(tmp_path / "run" / "shards") == expected


def test_a_group_without_captions_has_failed_and_is_not_rejected(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    _, _, config = people
    words = ("--set", "captions.by={backend: 'tests.curation.test_recovery:BreakingCaptioner'}")
    summary = curate(config, tmp_path / "run", *words, "--set", "engine.max_failed_share=1")
    stages = counts_of(summary)
    assert stages["captions"][3] == stages["captions"][0] > 0
    assert stages["pack"][2] == 0
    assert stages["pack"][3] == stages["pack"][0] > 0


def test_a_stage_in_which_every_row_failed_stops_the_run(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    _, _, config = people
    done = persona(
        "curate", "drawn", "--config", config, "--out", tmp_path / "run", "--engine", "inline",
        "--set", "captions.by={backend: 'tests.curation.test_recovery:BreakingCaptioner'}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "captions" in done.stderr.splitlines()[-1]
    status = json.loads(persona("status", tmp_path / "run", "--json").stdout)
    assert status["state"] == "stopped"


def test_a_newly_wanted_person_is_measured_and_the_others_are_not_again(
    people: tuple[Path, list[Drawn], Path], tmp_path: Path
) -> None:
    folder, _, _ = people
    pipeline = settings(folder)
    pipeline["people"]["measure"] = "kept"
    config = write_config(tmp_path / "kept.yaml", pipeline)
    curate(config, tmp_path / "run", "--set", "people.face.min_score=0.95")
    curate(config, tmp_path / "run", calls=tmp_path / "calls")
    curate(config, tmp_path / "run", "--set", "people.face.min_score=0.95", calls=tmp_path / "calls")
    curate(config, tmp_path / "run", calls=tmp_path / "calls")
    times = Counter(asked(tmp_path / "calls"))
    assert {stage for stage, _ in times} == {"segment", "regions", "appearance"}
    assert set(times.values()) == {1}
