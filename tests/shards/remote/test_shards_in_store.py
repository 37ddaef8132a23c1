"""Datasets in object stores: tools read them there, and `forget` rewrites them where they lie."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.object_store_server import Faults
from persona import main
from shards.format.dataset import DatasetError
from shards.format.members import identity_of
from shards.reading.folder import DatasetFolder
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.place_to_change import LOCK
from shards.tools.verify import verify
from tests.drawn_shards import Samples, bytes_of, drawn_groups, write_dataset
from tests.slow_store import SlowStore, empty_bucket, objects_below


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[SlowStore, Any]]:
    """A store with an empty bucket, and a client of it."""
    with empty_bucket() as found:
        yield found


@pytest.fixture
def samples() -> Samples:
    """Twelve identities with two outfits, three photos each."""
    return drawn_groups(12, outfits=2, photos=3)


@pytest.fixture
def place(server: tuple[SlowStore, Any], tmp_path: Path, samples: Samples) -> Iterator[str]:
    """Three shards of 8 groups in the store, the same as in tmp_path/data; emptied behind the test."""
    _, s3 = server
    write_dataset(tmp_path / "data", samples)
    for name, data in bytes_of(tmp_path / "data").items():
        s3.put_object(Bucket="bucket", Key=f"data/{name}", Body=data)
    yield "s3://bucket/data"
    for name in _seen(s3):
        s3.delete_object(Bucket="bucket", Key=f"data/{name}")


def _seen(s3: Any) -> dict[str, bytes]:
    return objects_below(s3, "data")


def test_forgetting_in_a_store_leaves_the_bytes_that_it_leaves_in_a_folder(
    server: tuple[SlowStore, Any], place: str, samples: Samples, tmp_path: Path
) -> None:
    who = IdsToForget(identities=frozenset([identity_of(list(samples)[9])]))
    before = _seen(server[1])
    done = forget(place, who)
    assert done == forget(str(tmp_path / "data"), who)
    after = _seen(server[1])
    assert after == bytes_of(tmp_path / "data")
    assert {name for name in before if name in after and name.endswith(".tar")} == {
        "000000.tar",
        "000002.tar",
    }
    assert verify(place).problems == []
    left = DatasetFolder(place)
    assert {left.read(n).key for n in range(len(left))} == {
        key for key in samples if identity_of(key) not in who.identities
    }
    left.close()


def test_a_bad_day_of_the_store_changes_nothing_of_it(
    server: tuple[SlowStore, Any], place: str, samples: Samples, tmp_path: Path
) -> None:
    who = IdsToForget(identities=frozenset([identity_of(next(iter(samples)))]))
    server[0].faults = Faults(failing=0.2, seed=3)
    try:
        forget(place, who)
    finally:
        server[0].faults = Faults()
    forget(str(tmp_path / "data"), who)
    assert _seen(server[1]) == bytes_of(tmp_path / "data")


def test_only_one_process_changes_a_dataset_and_a_dead_one_is_named(
    server: tuple[SlowStore, Any], place: str, samples: Samples
) -> None:
    before = _seen(server[1])
    lock = json.dumps({"host": "there", "pid": 7, "since": "2026-11-21T10:00:00+00:00"}).encode()
    server[1].put_object(Bucket="bucket", Key=f"data/{LOCK}", Body=lock)
    who = IdsToForget(identities=frozenset([identity_of(next(iter(samples)))]))
    with pytest.raises(DatasetError, match=r"process 7 of there, since 2026.*--break-lock goes on$"):
        forget(place, who)
    assert _seen(server[1]) == {**before, LOCK: lock}
    assert forget(place, who, break_lock=True).photos == 6
    assert LOCK not in _seen(server[1])


@pytest.mark.parametrize("write", [0, 3, 4])
def test_killed_at_any_write_one_revision_is_whole_and_the_same_command_ends_the_work(
    write: int, server: tuple[SlowStore, Any], place: str, samples: Samples, tmp_path: Path
) -> None:
    who = identity_of(list(samples)[9])
    code = (
        "import os, sys\n"
        "from shards.format.atomic_file import AtomicFile\n"
        "commit, left = AtomicFile.commit, [int(sys.argv[1])]\n"
        "def dies(self):\n"
        "    commit(self)\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), 9)\n"
        "AtomicFile.commit = dies\n"
        "from persona import main\n"
        "sys.exit(main(['shards', 'forget', sys.argv[2], '--identity', sys.argv[3]]))\n"
    )
    words = [sys.executable, "-c", code, str(write), place, who]
    killed = subprocess.run(words, env=dict(os.environ), capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    about = json.loads(_seen(server[1])["dataset.json"])
    listed = {entry["name"] for entry in about["shards"]} | set(about["index"])
    assert listed <= set(_seen(server[1]))
    assert main(["shards", "forget", place, "--identity", who, "--break-lock", "--missing-ok"]) == 0
    forget(str(tmp_path / "data"), IdsToForget(identities=frozenset([who])))
    assert _seen(server[1]) == bytes_of(tmp_path / "data")


def test_tools_read_a_dataset_where_it_lies(
    place: str, samples: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local, key = str(tmp_path / "data"), next(iter(samples))

    def said(*words: str) -> str:
        assert main(["shards", *words]) == 0
        return capsys.readouterr().out

    assert said("diff", local, place) == said("diff", local, local)
    assert said("cat", place, key) == said("cat", local, key)
    assert said("stats", place).splitlines()[1:] == said("stats", local).splitlines()[1:]
    for folder in (place, local):
        said("reshard", folder, "--out", f"{tmp_path}/{len(folder)}", "--max-samples", "5")
    one, two = (bytes_of(tmp_path / str(len(folder))) for folder in (place, local))
    assert one == two
    said("export", place, "--out", f"{tmp_path}/plain", "--to", "folders")
    assert len(list((tmp_path / "plain").rglob("*.jpg"))) == 72


def test_a_place_in_a_store_that_holds_no_dataset_is_one_line(
    server: tuple[SlowStore, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["stats"], ["forget", "--key", "a"]):
        assert main(["shards", words[0], "s3://bucket/nowhere", *words[1:]]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("persona: s3://bucket/nowhere: no dataset.json")
