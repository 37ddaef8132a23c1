"""A dataset in an object store reads as the same one on disk, on good days and on bad ones."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from benchmarks.object_store_server import Faults, environment_set, object_store
from shards.format.dataset import DatasetError
from shards.format.dataset_writer import DatasetWriter
from shards.reading.folder import DatasetFolder
from shards.reading.loader import Loader
from shards.remote.disk_cache import DiskCache
from tests.cache_folder import bytes_of
from tests.drawn_pipeline import ROOT
from tests.slow_store import SlowStore, client, slow_store, upload

SAMPLES = 160
MIB = 2**20
BAD_DAY = Faults(latency_s=0.02, failing=0.02, slow=0.05, slow_s=0.5, seed=4)
SPAWN = multiprocessing.get_context("spawn")


def write(folder: Path, seed: int) -> Path:
    """A dataset of 160 samples of some 90 KB, in three shards."""
    random = np.random.default_rng(seed)
    with DatasetWriter(str(folder), max_samples=60) as writer:
        for number in range(SAMPLES):
            members = {"bin": random.bytes(int(random.integers(50_000, 120_000))), "txt": b"%d" % number}
            writer.add(f"k{number:04d}", members)
        writer.close("random", {})
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset on disk."""
    return write(tmp_path_factory.mktemp("local") / "data", 1)


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[tuple[SlowStore, Any]]:
    """A store that holds the dataset as s3://bucket/data, and boto3's client of it."""
    with slow_store() as (store, environment), environment_set(environment):
        s3 = client(environment)
        upload(s3, local, "bucket", "data")
        yield store, s3


@pytest.fixture
def store(server: tuple[SlowStore, Any]) -> Iterator[SlowStore]:
    """The store, well-behaved before and after a test."""
    yield server[0]
    server[0].faults, server[0].denied = Faults(), set()
    server[0].asked.clear()


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    """A cache that has room for all."""
    return DiskCache(str(tmp_path / "cache"), max_bytes=64 * MIB)


class Members:
    """Hands out samples as they are."""

    def allocate(self, batch: int) -> dict[str, Any]:
        return {"sample": [None] * batch}

    def decode(self, sample: Any, arrays: dict[str, Any], slot: int) -> None:
        arrays["sample"][slot] = sample


def epoch(dataset: DatasetFolder, **settings: Any) -> list[Any]:
    """All samples of an epoch in its order; none may be broken."""
    loader = Loader(dataset, Members(), 16, threads=4, max_broken=0, **settings)
    return [sample for batch in loader for sample in batch.arrays["sample"]]


def shard_requests(store: SlowStore) -> int:
    return sum(number for what, number in store.asked.items() if ".tar " in what)


@pytest.mark.parametrize("kept", ["on disk", "in memory"])
@pytest.mark.parametrize("day", ["good", "bad"])
def test_an_epoch_gives_the_samples_of_the_local_folder(
    day: str, kept: str, local: Path, store: SlowStore, cache: DiskCache
) -> None:
    store.faults = BAD_DAY if day == "bad" else Faults()
    dataset = DatasetFolder("s3://bucket/data", cache=cache if kept == "on disk" else None)
    assert epoch(dataset) == epoch(DatasetFolder(str(local)))
    dataset.close()


def test_a_second_epoch_and_a_second_reader_ask_the_store_for_no_shard(
    store: SlowStore, cache: DiskCache
) -> None:
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    epoch(dataset)
    first = shard_requests(store)
    assert 0 < first < SAMPLES / 4
    epoch(dataset)
    dataset.close()
    epoch(DatasetFolder("s3://bucket/data", cache=cache))
    assert shard_requests(store) == first
    assert sum(number for what, number in store.asked.items() if "index.arrow" in what) == 1


def test_samples_that_are_announced_come_in_few_requests(store: SlowStore, cache: DiskCache) -> None:
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    dataset.prefetch(np.arange(60))
    for number in range(60):
        dataset.read(number)
    assert shard_requests(store) <= 3


def test_a_single_sample_without_a_cache_is_one_request_for_little_more_than_itself(
    store: SlowStore, local: Path
) -> None:
    dataset = DatasetFolder("s3://bucket/data")
    dataset.prefetch(np.array([100]))
    assert dataset.read(100) == DatasetFolder(str(local)).read(100)
    (what,) = [what for what in store.asked if ".tar " in what]
    start, stop = what.split("bytes=")[1].split("-")
    assert int(stop) - int(start) < 300_000
    dataset.close()


def test_the_cache_keeps_to_its_limit_and_every_sample_is_still_right(
    store: SlowStore, local: Path, tmp_path: Path
) -> None:
    small = DiskCache(str(tmp_path / "small"), max_bytes=7 * MIB)
    dataset = DatasetFolder("s3://bucket/data", cache=small)
    expected = DatasetFolder(str(local))
    for number in np.random.default_rng(0).permutation(SAMPLES)[:60].tolist():
        assert dataset.read(number) == expected.read(number)
        assert bytes_of(tmp_path / "small") <= 7 * MIB
    dataset.close()


def test_a_torn_piece_is_fetched_again(
    store: SlowStore, local: Path, cache: DiskCache, tmp_path: Path
) -> None:
    expected = epoch(DatasetFolder(str(local)))
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    assert epoch(dataset) == expected
    dataset.close()
    pieces = [path for path in (tmp_path / "cache").glob("??/*") if path.suffix != ".arrow"]
    for piece, size in zip(pieces, (0, 1000, MIB), strict=False):
        os.truncate(piece, size)
    pieces[3].write_bytes(os.urandom(pieces[3].stat().st_size))
    before = shard_requests(store)
    assert epoch(DatasetFolder("s3://bucket/data", cache=cache)) == expected
    assert 2 <= shard_requests(store) - before <= 8


def test_a_cache_that_is_deleted_while_it_is_used_is_filled_again(
    store: SlowStore, local: Path, cache: DiskCache, tmp_path: Path
) -> None:
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    expected = epoch(DatasetFolder(str(local)))
    assert epoch(dataset) == expected
    # What was read ahead is still written, also while the folder is being deleted.
    while (tmp_path / "cache").exists():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert epoch(dataset) == expected


def test_a_cache_that_is_no_folder_any_more_is_warned_of_once_and_the_epoch_goes_on(
    store: SlowStore, local: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "folder")
    (tmp_path / "no folder").touch()
    cache = DiskCache(str(tmp_path / "cache"), max_bytes=2**26)
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset.read(0)
        os.replace(tmp_path / "no folder", tmp_path / "cache")  # at once: what is read ahead is still written
        assert epoch(dataset) == epoch(DatasetFolder(str(local)))
    assert len([one for one in caught if "shards are read on without keeping" in str(one.message)]) == 1
    dataset.close()


def test_a_full_disk_is_warned_of_once_and_the_epoch_goes_on(
    store: SlowStore, local: Path, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    dataset.read(0)
    expected = epoch(DatasetFolder(str(local)))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkeypatch.setattr(os, "ftruncate", full)
        assert epoch(dataset) == expected
    assert len([one for one in caught if "No space left" in str(one.message)]) == 1
    dataset.close()


def test_a_rewritten_dataset_is_never_served_from_what_was_kept_of_the_old_one(
    server: tuple[SlowStore, Any], store: SlowStore, cache: DiskCache, tmp_path: Path
) -> None:
    s3 = server[1]
    for seed in (5, 6):
        folder = write(tmp_path / str(seed), seed)
        upload(s3, folder, "bucket", "changing")
        dataset = DatasetFolder("s3://bucket/changing", cache=cache)
        assert epoch(dataset) == epoch(DatasetFolder(str(folder)))
        dataset.close()


_READ_ALL = """
import sys
import numpy as np
import xxhash
from shards.remote.disk_cache import DiskCache
from shards.reading.folder import DatasetFolder
dataset = DatasetFolder("s3://bucket/data", cache=DiskCache(sys.argv[1], max_bytes=2**26))
print("ready", flush=True)
sys.stdin.readline()
order = np.random.default_rng(0).permutation(len(dataset))
dataset.prefetch(order)
for number in order.tolist():
    print(number, xxhash.xxh3_64_hexdigest(dataset.read(number).members["bin"]))
dataset.close()
"""


def test_processes_that_share_a_cache_fetch_each_piece_once(
    store: SlowStore, local: Path, tmp_path: Path
) -> None:
    store.faults = Faults(latency_s=0.1)  # long enough that they meet
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path / "shared")]
    readers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    read = [reader.communicate()[0].split() for reader in readers]
    expected = DatasetFolder(str(local))
    contents = {
        str(number): xxhash.xxh3_64_hexdigest(expected.read(number).members["bin"])
        for number in range(SAMPLES)
    }
    assert dict(zip(read[0][::2], read[0][1::2], strict=True)) == contents
    assert read[1] == read[0]
    total = sum(path.stat().st_size for path in local.glob("*.tar"))
    sent = 0
    for what, number in store.asked.items():
        if ".tar " in what:
            start, stop = what.split("bytes=")[1].split("-")
            sent += number * (int(stop) - int(start) + 1)
    assert sent < 1.3 * total


def test_an_open_folder_can_be_sent_to_another_process(store: SlowStore, cache: DiskCache) -> None:
    dataset = DatasetFolder("s3://bucket/data", cache=cache)
    with SPAWN.Pool(1) as pool:
        assert pool.apply(dataset.read, (7,)) == dataset.read(7)
    dataset.close()


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_a_plain_server_of_files_will_do(kind: str, local: Path, cache: DiskCache) -> None:
    with object_store(local.parent, BAD_DAY) as environment, environment_set(environment):
        root = "s3:/" if kind == "s3" else environment["AWS_ENDPOINT_URL"]
        dataset = DatasetFolder(f"{root}/{local.name}", cache=cache)
        assert epoch(dataset) == epoch(DatasetFolder(str(local)))
        dataset.close()


def test_a_process_may_end_while_pieces_are_on_their_way(store: SlowStore, tmp_path: Path) -> None:
    store.faults = Faults(latency_s=0.1)
    script = (
        "import numpy as np\n"
        "from shards.remote.disk_cache import DiskCache\n"
        "from shards.reading.folder import DatasetFolder\n"
        f"cache = DiskCache({str(tmp_path)!r}, max_bytes=10**9)\n"
        "dataset = DatasetFolder('s3://bucket/data', cache=cache)\n"
        "dataset.prefetch(np.arange(160))\n"
        "dataset.read(3)\n"
        "raise SystemExit(5)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, b"", b"")


@pytest.mark.parametrize("kept", ["on disk", "in memory"])
def test_a_missing_shard_is_one_line_and_costs_only_its_samples(
    kept: str, server: tuple[SlowStore, Any], store: SlowStore, cache: DiskCache, local: Path
) -> None:
    upload(server[1], local, "bucket", "holes")
    server[1].delete_object(Bucket="bucket", Key="holes/000001.tar")
    dataset = DatasetFolder("s3://bucket/holes", cache=cache if kept == "on disk" else None)
    dataset.prefetch(np.arange(55, 65))
    with pytest.raises(OSError, match=r"^s3://bucket/holes/000001\.tar: no such object \(404 NoSuchKey\)$"):
        dataset.read(60)
    assert dataset.read(59) == DatasetFolder(str(local)).read(59)
    dataset.close()


def test_a_folder_that_is_no_dataset_a_missing_bucket_and_a_denied_one_are_one_line(store: SlowStore) -> None:
    with pytest.raises(DatasetError, match=r"^s3://bucket/nothing: no dataset\.json: not a dataset"):
        DatasetFolder("s3://bucket/nothing")
    with pytest.raises(DatasetError, match=r"^s3://elsewhere/data/dataset\.json: no such bucket"):
        DatasetFolder("s3://elsewhere/data")
    with pytest.raises(DatasetError, match=r"^ftp://host/data: "):
        DatasetFolder("ftp://host/data")
    store.denied = {"bucket"}
    with pytest.raises(DatasetError) as error:
        DatasetFolder("s3://bucket/data")
    assert str(error.value) == "s3://bucket/data/dataset.json: access denied (403 AccessDenied)"


def test_an_index_that_was_exchanged_is_refused(
    server: tuple[SlowStore, Any], store: SlowStore, cache: DiskCache, local: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", 9)
    about = json.loads((local / "dataset.json").read_text())
    (name,) = [name for name in about["index"] if name.endswith(".arrow")]
    upload(server[1], local, "bucket", "exchanged")
    server[1].upload_file(str(other / name), "bucket", f"exchanged/{name}")
    for kept in (cache, None):
        with pytest.raises(DatasetError, match=r"is not the index that dataset\.json names"):
            DatasetFolder("s3://bucket/exchanged", cache=kept)
