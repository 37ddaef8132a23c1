"""`persona forget` where runs, their dataset and their identity index lie in an object store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shards.tools.place_to_change import LOCK
from tests.curation.forgetting.test_forgetting import (
    GONE,
    URL,
    World,
    original,
    persona,
    pieces,
    world,
    written,
)
from tests.drawn_pipeline import files_of
from tests.slow_store import empty_bucket, objects_below, upload

__all__ = ["original", "world"]  # fixtures
NAME = "first"


@pytest.fixture
def store(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's client of a store that holds the world's runs and index."""
    monkeypatch.setenv("PERSONA_TOMBSTONE_KEY", "5" * 64)
    with empty_bucket() as (_, s3):
        _fill(s3, world)
        yield s3


def _fill(s3: Any, world: World) -> None:
    """Uploads runs and index; nothing there names the local ones."""
    record, local = world.run / "run.yaml", (world.run / "run.yaml").read_text()
    record.write_text(local.replace(str(world.folder / "index"), "s3://bucket/index"))
    upload(s3, world.folder / "runs", "bucket", "runs")
    record.write_text(local)
    upload(s3, world.folder / "index", "bucket", "index")


def _local(world: World) -> tuple[Path | str, ...]:
    """The folder of runs, with the store beside the runs: there it is of runs in an object store."""
    return world.folder / "runs", "--store", world.folder / "runs" / "forgotten"


def _without_record(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but the record, which tells the time, and run.yaml, which tells where the index lies."""
    return {
        name: data
        for name, data in files.items()
        if name not in ("forgotten/record.jsonl", f"{NAME}/run.yaml")
    }


def test_forgetting_in_a_store_leaves_what_it_leaves_in_a_folder(
    world: World, store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = world.drawn[GONE]
    traces = [world.photo_id.encode(), URL.format(GONE).encode(), gone.jpeg, *pieces(gone.jpeg)]
    assert persona("forget", "s3://bucket/runs", "--photo", world.photo_id) == 0
    said = capsys.readouterr().out
    assert "0 still name one of them" in said
    assert "index    s3://bucket/index: 1 faces" in said
    assert persona("forget", *_local(world), "--photo", world.photo_id) == 0
    for folder in ("runs", "index"):
        in_store = _without_record(objects_below(store, folder))
        assert in_store == _without_record(files_of(world.folder / folder))
        (tmp_path / "seen" / folder).mkdir(parents=True)
        for number, (name, data) in enumerate(in_store.items()):
            (tmp_path / "seen" / folder / f"{number}-{name.rpartition('/')[2]}").write_bytes(data)
    everything = written(tmp_path / "seen")
    assert [trace for trace in traces if trace in everything] == []
    assert persona("shards", "verify", f"s3://bucket/runs/{NAME}/shards") == 0
    assert persona("forget", "s3://bucket/runs", "--records") == 0


def test_killed_in_the_store_the_wish_is_pending_and_going_on_completes_it(
    world: World, store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", *_local(world), "--photo", world.photo_id) == 0
    code = (
        "import os, sys\n"
        "from shards.format.atomic_file import AtomicFile\n"
        "AtomicFile.commit = lambda self: os.kill(os.getpid(), 9)\n"  # at the first new shard
        "from persona import main\n"
        "sys.exit(main(['forget', 's3://bucket/runs', '--photo', sys.argv[1]]))\n"
    )
    words = [sys.executable, "-c", code, world.photo_id]
    killed = subprocess.run(words, env=dict(os.environ), capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    left = objects_below(store, "runs")
    assert f"{NAME}/shards/{LOCK}" in left
    assert json.loads(left["forgotten/pending.json"])["meant"]["photos"]
    run = ("--config", world.config, "--out", f"s3://bucket/runs/{NAME}", "--quiet", "--engine", "inline")
    assert persona("curate", "drawn", *run) == 2
    assert "is not completed" in capsys.readouterr().err
    assert persona("forget", "s3://bucket/runs", "--go-on") == 1
    assert "another process is changing this dataset" in capsys.readouterr().err
    assert persona("forget", "s3://bucket/runs", "--go-on", "--break-lock") == 0
    assert _without_record(objects_below(store, "runs")) == _without_record(files_of(world.folder / "runs"))


def test_a_store_that_fails_at_any_write_leaves_a_wish_that_is_completed_to_the_same_bytes(
    world: World, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem: Any = fsspec.get_filesystem_class("s3")
    put, left = filesystem._pipe_file, [0]

    async def until_it_fails(self: Any, *words: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError("the store is gone")
        return await put(self, *words, **named)

    forget = ("forget", "s3://bucket/runs", "--photo", world.photo_id)
    monkeypatch.setattr(filesystem, "_pipe_file", until_it_fails)
    assert persona(*forget) == 0
    undisturbed, writes = _without_record(objects_below(store, "runs")), -left[0]
    for fails_at in range(2, writes, writes // 3):
        for name in objects_below(store, "runs"):
            store.delete_object(Bucket="bucket", Key=f"runs/{name}")
        _fill(store, world)
        left[0] = fails_at
        assert persona(*forget) == 1
        pending = "forgotten/pending.json" in objects_below(store, "runs")
        assert persona(*(("forget", "s3://bucket/runs", "--go-on") if pending else forget)) == 0
        assert _without_record(objects_below(store, "runs")) == undisturbed


def test_a_place_in_a_store_that_is_not_there_is_one_line(
    store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert persona("forget", "s3://bucket/nowhere", "--photo", "ab" * 32) == 2
    assert "s3://bucket/nowhere: there is no such folder or file" in capsys.readouterr().err
